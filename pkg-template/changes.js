/** Methods that set one thing: of several calls, the last one counts. */
const SETTERS = ['setScheduler', 'setFreeU', 'setVaeTiling', 'setVaeSlicing'];
const CHECKER_METHODS = ['loadSafetyChecker', 'removeSafetyChecker'];
/** Methods that change the adapters, and the one that makes all of that undone. */
const LORA = ['loadLoraWeights', 'setAdapters', 'deleteAdapters', 'enableLora', 'fuseLora', 'unfuseLora'];
const WORDS = ['loadTextualInversion', 'unloadTextualInversion'];

/** What has been changed since a pipeline was loaded. */
export class Changes {
  #calls = [];

  add(call) {
    const { method, args } = call;
    const forget = (methods) => {
      this.#calls = this.#calls.filter((earlier) => !methods.includes(earlier.method));
    };
    if (SETTERS.includes(method)) forget([method]);
    if (CHECKER_METHODS.includes(method)) forget(CHECKER_METHODS);
    if (method === 'unloadLoraWeights') forget(LORA);
    else if (method === 'unloadTextualInversion' && args[0] === undefined) forget(WORDS);
    else if ([...SETTERS, ...CHECKER_METHODS, ...LORA, ...WORDS].includes(method)) this.#calls.push(call);
  }

  list() {
    return [...this.#calls];
  }
}
