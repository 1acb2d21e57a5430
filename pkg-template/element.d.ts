import type { EditOptions, EditResult, EditStep, InstructPix2Pix, LoadOptions, LoadProgress } from './index.js';
import type { EditState } from './react.js';

export type { EditState };

/**
 * `<instruct-pix2pix>`: a picture, an instruction, a button, and the result.
 *
 * Importing this module defines the element. Attributes:
 *
 * | attribute | is |
 * | --- | --- |
 * | `model` | a Hub id or a URL; `timbrooks/instruct-pix2pix` by default |
 * | `revision`, `worker-url`, `wasm-url` | the load options of these names |
 * | `src` | the picture's URL, in place of a file that the user chooses |
 * | `prompt` | the instruction that stands in the field |
 * | `steps`, `seed`, `guidance-scale`, `image-guidance-scale` | the edit options of these names |
 *
 * Its parts, for `::part()`: `form`, `file`, `prompt`, `button`, `cancel`, `progress`, `status` and
 * `result`, a canvas. Its slots, for other words on the buttons: `edit` and `cancel`.
 *
 * The model is loaded with the first edit and freed when the element is taken out of the document.
 */
export class InstructPix2PixElement extends HTMLElement {
  /** The attribute `model`, or its default. */
  model: string;
  /** The attribute `src`: the picture's URL, in place of a file that the user chooses. */
  src: string | null;
  /** The instruction as it stands in the field. */
  prompt: string;
  /** Load options beside the attributes', e.g. `cache` or `fetch`. They count for the next load. */
  options: LoadOptions;
  /** What is going on. */
  readonly state: EditState;
  /** The last edit's result. */
  readonly result: EditResult | undefined;
  /** Loads the model, unless it is loaded. */
  load(): Promise<InstructPix2Pix>;
  /** Edits what is chosen in the element; what is given here counts before that. */
  edit(options?: Partial<EditOptions<'image'>>): Promise<EditResult>;
  /** Gives up the edits that run or wait. */
  cancel(): void;

  /** Hears of one of {@link InstructPix2PixEventMap}. */
  addEventListener<K extends keyof InstructPix2PixEventMap>(
    type: K,
    listener: (this: InstructPix2PixElement, event: InstructPix2PixEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  /** Hears of any other event. */
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/** The element's events. None of them bubbles. */
export interface InstructPix2PixEventMap extends Omit<HTMLElementEventMap, 'progress' | 'error'> {
  /** More of the model has arrived. */
  progress: CustomEvent<LoadProgress>;
  /** A step of an edit has ended. */
  step: CustomEvent<EditStep>;
  /** An edit has ended. */
  result: CustomEvent<EditResult>;
  /** Loading or an edit failed. */
  error: CustomEvent<unknown>;
}

declare global {
  interface HTMLElementTagNameMap {
    'instruct-pix2pix': InstructPix2PixElement;
  }
}
