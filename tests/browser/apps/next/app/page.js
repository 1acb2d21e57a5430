'use client';

import { useEffect } from 'react';
// The server imports this too.
import { useInstructPix2Pix } from 'instruct-pix2pix-web/react';
import { run } from './run.js';

export default function Page() {
  const { status } = useInstructPix2Pix('a/b');
  useEffect(() => {
    run();
  }, []);
  return <p id="from-the-server">{status}</p>;
}
