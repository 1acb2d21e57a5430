import { IDLE, Session } from './session.js';

/** Attributes that an edit takes as numbers. */
const NUMBERS = {
  steps: 'numInferenceSteps',
  'guidance-scale': 'guidanceScale',
  'image-guidance-scale': 'imageGuidanceScale',
  seed: 'seed',
};

/** Attributes that loading takes. */
const LOADING = { revision: 'revision', 'worker-url': 'workerUrl', 'wasm-url': 'wasmUrl' };

const STYLE = `
  :host { display: block; font: inherit }
  :host([hidden]) { display: none }
  form { display: flex; flex-wrap: wrap; gap: 0.5em; align-items: center }
  [part=prompt] { flex: 1 1 12em; min-width: 0 }
  [part=prompt], button, input { font: inherit }
  progress { width: 100% }
  canvas { display: block; max-width: 100%; margin-top: 0.5em }
  [hidden] { display: none }
`;

const MARKUP = `
  <form part="form">
    <input part="file" type="file" accept="image/*" aria-label="Picture">
    <input part="prompt" type="text" aria-label="Instruction">
    <button part="button" type="submit"><slot name="edit">Edit</slot></button>
    <button part="cancel" type="button" hidden><slot name="cancel">Cancel</slot></button>
  </form>
  <progress part="progress" hidden></progress>
  <p part="status" role="status"></p>
  <canvas part="result" role="img" hidden></canvas>
`;

/** Where there are no elements, on a server, the class is there and cannot be used. */
const Base = globalThis.HTMLElement ?? class {};

export class InstructPix2PixElement extends Base {
  static observedAttributes = ['model', 'prompt', 'src'];

  #state = IDLE;
  #parts;
  /** @type {Session | undefined} */
  #session;
  /** The load options that no attribute can hold. */
  options = {};

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.innerHTML = MARKUP;
    // Not a `<style>`, which a strict Content-Security-Policy forbids.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const part = (name) => root.querySelector(`[part=${name}]`);
    this.#parts = Object.fromEntries(
      ['form', 'file', 'prompt', 'button', 'cancel', 'progress', 'status', 'result'].map((name) => [
        name,
        part(name),
      ]),
    );
    this.#parts.form.addEventListener('submit', (event) => {
      event.preventDefault();
      // What fails is told by an event, and shown.
      this.edit().catch(() => {});
    });
    this.#parts.cancel.addEventListener('click', () => this.cancel());
  }

  connectedCallback() {
    this.#show();
  }

  disconnectedCallback() {
    // It may only be moved.
    queueMicrotask(() => {
      if (!this.isConnected) this.#close();
    });
  }

  attributeChangedCallback(name, before, value) {
    if (before === value) return;
    if (name === 'model') this.#close();
    else if (name === 'prompt') this.#parts.prompt.value = value ?? '';
    else this.#parts.file.hidden = value !== null;
  }

  get model() {
    return this.getAttribute('model') ?? 'timbrooks/instruct-pix2pix';
  }

  set model(value) {
    this.setAttribute('model', value);
  }

  get src() {
    return this.getAttribute('src');
  }

  set src(value) {
    if (value == null) this.removeAttribute('src');
    else this.setAttribute('src', value);
  }

  get prompt() {
    return this.#parts.prompt.value;
  }

  set prompt(value) {
    this.#parts.prompt.value = value;
  }

  get state() {
    return this.#state;
  }

  get result() {
    return this.#state.result;
  }

  /** Loads the model. */
  load() {
    return this.#open().load();
  }

  /** Edits what is chosen, or what `options` say. */
  async edit(options = {}) {
    const given = Object.entries(NUMBERS).filter(([name]) => this.hasAttribute(name));
    const numbers = given.map(([name, option]) => [option, Number(this.getAttribute(name))]);
    const [file] = this.#parts.file.files;
    return this.#open().edit({
      image: this.getAttribute('src') ?? file,
      prompt: this.prompt,
      ...Object.fromEntries(numbers),
      ...options,
    });
  }

  /** Gives up the edits that run or wait. */
  cancel() {
    this.#session?.cancel();
  }

  #open() {
    const loadOptions = () => {
      const given = Object.entries(LOADING).filter(([name]) => this.hasAttribute(name));
      const attributes = given.map(([name, option]) => [option, this.getAttribute(name)]);
      return { ...Object.fromEntries(attributes), ...this.options };
    };
    this.#session ??= new Session(this.model, loadOptions, (change) => this.#change(change));
    return this.#session;
  }

  #close() {
    this.#session?.close();
    this.#session = undefined;
    this.#change({ ...IDLE, result: this.#state.result });
  }

  #change(change) {
    this.#state = { ...this.#state, ...change };
    const { progress, step, result, error } = change;
    for (const [type, detail] of Object.entries({ progress, step, result, error })) {
      if (detail !== undefined) this.dispatchEvent(new CustomEvent(type, { detail }));
    }
    if (result?.images?.[0] instanceof ImageData) this.#draw(result.images[0]);
    this.#show();
  }

  #draw(picture) {
    const canvas = this.#parts.result;
    canvas.width = picture.width;
    canvas.height = picture.height;
    canvas.getContext('2d').putImageData(picture, 0, 0);
    canvas.setAttribute('aria-label', this.prompt);
    canvas.hidden = false;
  }

  #show() {
    const { status, progress, step, error } = this.#state;
    const { button, cancel, progress: bar, status: line } = this.#parts;
    const isBusy = status === 'loading' || status === 'editing';
    button.disabled = isBusy;
    cancel.hidden = status !== 'editing';
    bar.hidden = !isBusy;
    const done = status === 'editing' ? step && (step.step + 1) / step.steps : loadedShare(progress);
    if (done === undefined) bar.removeAttribute('value');
    else bar.value = done;
    line.textContent = status === 'error' ? String(error?.message ?? error) : '';
    this.setAttribute('aria-busy', String(isBusy));
  }
}

function loadedShare(progress) {
  return progress?.type === 'download' ? progress.loaded / progress.total : undefined;
}

if (globalThis.customElements && !customElements.get('instruct-pix2pix')) {
  customElements.define('instruct-pix2pix', InstructPix2PixElement);
}
