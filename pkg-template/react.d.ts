import type {
  EditOptions,
  EditResult,
  EditStep,
  InstructPix2Pix,
  LoadOptions,
  LoadProgress,
  ModelLocation,
} from './index.js';

/** What a page shows of a model and its edits. */
export interface EditState {
  /**
   * `'idle'` before the model is asked for, `'loading'`, `'ready'`, `'editing'`, or `'error'` after
   * something failed. After an error, the next call tries again.
   */
  status: 'idle' | 'loading' | 'ready' | 'editing' | 'error';
  /** The last event of loading. */
  progress: LoadProgress | undefined;
  /** The last step of the edit that runs. */
  step: EditStep | undefined;
  /** The last edit's result. */
  result: EditResult | undefined;
  /** Why the last call failed: an `InstructPix2PixError` as a rule. */
  error: unknown;
}

/** How the model is loaded. Changes count for the next load. */
export interface HookOptions extends LoadOptions {
  /**
   * Load the model at once, and not when the first edit needs it. It may be a large download.
   * @default false
   */
  autoLoad?: boolean;
}

/** What {@link useInstructPix2Pix} gives. The functions are the same on every render. */
export interface EditHook extends EditState {
  /** Loads the model. Resolves to nothing where that fails; `error` says why. */
  load(): Promise<InstructPix2Pix | undefined>;
  /**
   * Edits, loading the model first where that has not been done. Resolves to nothing where that
   * fails, or is given up; `error` says why. Steps show no tensors unless `onStep` is given.
   */
  edit(options: EditOptions<'image'>): Promise<EditResult | undefined>;
  /** Gives up the edits that run or wait. */
  cancel(): void;
}

/**
 * A model, for a component. It is loaded when it is needed, freed when the component goes away or
 * names another model, and edits in a worker.
 *
 * @param model As for `InstructPix2Pix.fromPretrained`. Keep arrays of files in a state or a ref: a
 *   new one is another model.
 * @example
 * const { status, result, edit } = useInstructPix2Pix('timbrooks/instruct-pix2pix');
 */
export function useInstructPix2Pix(model: ModelLocation, options?: HookOptions): EditHook;
