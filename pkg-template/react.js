import { useCallback, useEffect, useRef, useState } from 'react';
import { IDLE, Session } from './session.js';

/**
 * @param {import('./index.js').ModelLocation} model
 * @param {import('./react.js').HookOptions} [options]
 */
export function useInstructPix2Pix(model, options) {
  const [state, setState] = useState(IDLE);
  const session = useRef(/** @type {Session | undefined} */ (undefined));
  const latest = useRef(options);
  useEffect(() => {
    latest.current = options;
  });
  useEffect(() => {
    const loadOptions = () => {
      const { autoLoad: _, ...rest } = latest.current ?? {};
      return rest;
    };
    const own = new Session(model, loadOptions, (change) =>
      setState((before) => ({ ...before, ...change })),
    );
    session.current = own;
    setState(IDLE);
    // What fails is in the state.
    if (latest.current?.autoLoad) own.load().catch(() => {});
    return () => own.close();
  }, [model]);
  const quietly = (call) => call.catch(() => undefined);
  return {
    ...state,
    load: useCallback(() => quietly(session.current.load()), []),
    edit: useCallback((request) => quietly(session.current.edit(request)), []),
    cancel: useCallback(() => session.current.cancel(), []),
  };
}
