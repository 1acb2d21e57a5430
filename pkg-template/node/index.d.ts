import type {
  AdapterSource,
  CacheStore,
  CallOptions,
  DownloadOptions,
  EditOptions,
  EditResult,
  ImageSource,
  LoadedLora,
  LoadOptions,
  LoraOptions,
  ModelLocation,
  OutputImages,
  OutputType,
  Requirements,
  RequirementsOptions,
  SaveLoraOptions,
  SingleFileOptions,
  Tensor,
  TextualInversionOptions,
  XLComponentOptions,
  XLComponents,
  XLEditOptions,
} from '../index.js';
import { DirectInstructPix2Pix } from '../index.js';

export { cache, Component, env, InstructPix2PixError } from '../index.js';
export type * from '../index.js';

/**
 * A picture: what {@link ImageSource} names, except what only browsers have; or a file's path, its
 * `file:` URL or its bytes. PNG, JPEG and WebP are read.
 */
export type NodeImageSource = ImageSource | Uint8Array;

/** The loading options of browsers; `cache` may be a folder's path. */
export type Local<Options> = Omit<Options, 'cache'> & {
  /**
   * Where models are kept: a folder's path, a store of yours, or `false` for nowhere.
   * @default the folder `instruct-pix2pix-web` among the user's caches
   */
  cache?: string | boolean | CacheStore;
};

/** The edit options of browsers, with files for pictures. */
export type LocalEdit<Options> = Omit<Options, 'image'> & {
  /** See {@link EditOptions.image}. */
  image: NodeImageSource | readonly NodeImageSource[] | Tensor | readonly Tensor[];
};

/** Keeps models as files of one folder. */
export class DiskStore implements CacheStore {
  /** @param folder Made where it is not there; the default one among the user's caches. */
  constructor(folder?: string);
  /** Where the files are. */
  readonly folder: string;
  /** An entry, or nothing. */
  get(key: string): Promise<Uint8Array | undefined>;
  /** Writes an entry wholly, or not at all. */
  put(key: string, value: ArrayBuffer): Promise<void>;
  /** Forgets an entry. */
  delete(key: string): Promise<void>;
  /** The keys of all entries. */
  keys(): Promise<string[]>;
}

/** Writes a picture as a PNG file. */
export function encodePng(picture: {
  data: Uint8ClampedArray | Uint8Array;
  width: number;
  height: number;
}): Uint8Array;

/**
 * The pipeline in Node, on the calling thread, and on the GPU that the npm package `webgpu` finds, or Deno itself.
 * Where browsers take handles, addresses or blobs, paths may be given: a model's folder, a picture,
 * an adapter, a folder to write to. Paths win over Hub ids of the same spelling.
 *
 * Pictures of results have no class here: `{ data, width, height, colorSpace }`.
 *
 * @example
 * import { writeFile } from 'node:fs/promises';
 * import { InstructPix2Pix } from 'instruct-pix2pix-web/node';
 * const pipe = await InstructPix2Pix.fromPretrained('timbrooks/instruct-pix2pix');
 * const { images } = await pipe.edit({ image: 'photo.jpg', prompt: 'make it snowy', outputType: 'blob' });
 * await writeFile('out.png', new Uint8Array(await images[0].arrayBuffer()));
 */
export class InstructPix2Pix extends DirectInstructPix2Pix {
  edit<T extends OutputType = 'image'>(
    options: LocalEdit<EditOptions<T>> & { returnDict: false },
  ): Promise<[images: OutputImages[T], nsfwContentDetected?: boolean[] | undefined]>;
  edit<T extends OutputType = 'image'>(options: LocalEdit<EditOptions<T>>): Promise<EditResult<T>>;

  encodeImage(options: {
    image: NodeImageSource | readonly NodeImageSource[] | Tensor | readonly Tensor[];
    signal?: AbortSignal;
  }): Promise<Tensor>;

  loadLoraWeights(source: AdapterSource, options?: LoraOptions): Promise<LoadedLora>;
  loadTextualInversion(
    source: AdapterSource | readonly AdapterSource[],
    options?: TextualInversionOptions,
  ): Promise<string[]>;
  saveLoraWeights(
    options?: Omit<SaveLoraOptions, 'saveDirectory'> & {
      /** The folder to write to: a path or a handle. */
      saveDirectory?: string | FileSystemDirectoryHandle;
    },
  ): Promise<Blob>;
  savePretrained(
    directory: string | FileSystemDirectoryHandle,
    options?: CallOptions,
  ): Promise<void>;

  static fromPretrained(
    model: ModelLocation,
    options?: Local<LoadOptions>,
  ): Promise<InstructPix2Pix>;
  static fromSingleFile(
    source: string | URL | Blob,
    options?: Local<SingleFileOptions>,
  ): Promise<InstructPix2Pix>;
  static download(model: string | URL, options?: Local<DownloadOptions>): Promise<void>;
  static requirements(
    model: string | URL,
    options?: Local<RequirementsOptions>,
  ): Promise<Requirements>;
}

/** {@link InstructPix2Pix} for Stable Diffusion XL. */
export class InstructPix2PixXL extends InstructPix2Pix {
  constructor(components: XLComponentOptions);
  readonly components: XLComponents;
  edit<T extends OutputType = 'image'>(
    options: LocalEdit<XLEditOptions<T>> & { returnDict: false },
  ): Promise<[images: OutputImages[T]]>;
  edit<T extends OutputType = 'image'>(options: LocalEdit<XLEditOptions<T>>): Promise<EditResult<T>>;
  static fromPretrained(
    model: ModelLocation,
    options?: Local<LoadOptions>,
  ): Promise<InstructPix2PixXL>;
}
