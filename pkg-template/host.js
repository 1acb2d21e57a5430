/** An engine, and how many pipelines live in it. */
export class Host {
  #users = 1;
  #create;

  /** @param {() => any} create */
  constructor(create) {
    this.#create = create;
    this.engine = create();
  }

  /** A new worker in place of one whose GPU device is gone. The direct engine has to stay. */
  renew() {
    if (!this.engine.lost || !this.engine.renewable) return;
    this.engine.dispose();
    this.engine = this.#create();
  }

  retain() {
    this.#users++;
  }

  /** Frees a pipeline; with the last one, the engine. */
  async release(pipeline) {
    if (--this.#users === 0) await this.engine.dispose();
    else await this.engine.release(await pipeline);
  }
}
