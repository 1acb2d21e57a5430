/** Copies of a model with one thing wrong in each. */

import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { editSafetensorsHeader } from './harness.mjs';

const UNET = 'unet/diffusion_pytorch_model.safetensors';
const TENSOR = 'conv_in.weight';

const rewrite = (path, change) => writeFileSync(path, change(readFileSync(path)));
const rewriteHeader = (model, edit) =>
  rewrite(join(model, UNET), (bytes) => editSafetensorsHeader(bytes, edit));

/** What is wrong with each model, and the error that loading it must end in. */
const MODELS = {
  truncated: {
    spoil: (model) => truncateSync(join(model, UNET), readFileSync(join(model, UNET)).length - 1),
    code: 'invalid-safetensors',
    message: /unet/,
  },
  'cut-in-the-header': {
    spoil: (model) => truncateSync(join(model, UNET), 100),
    code: 'invalid-safetensors',
    message: /unet/,
  },
  'header-of-exabytes': {
    spoil: (model) =>
      rewrite(join(model, UNET), (bytes) => {
        bytes.writeBigUInt64LE(2n ** 62n, 0);
        return bytes;
      }),
    code: 'invalid-safetensors',
    message: /unet/,
  },
  'header-that-is-no-json': {
    spoil: (model) =>
      rewrite(join(model, UNET), (bytes) => {
        bytes.fill('[', 8, 108);
        return bytes;
      }),
    code: 'invalid-safetensors',
    message: /unet/,
  },
  'overlapping-tensors': {
    spoil: (model) =>
      rewriteHeader(model, (header) => {
        const [begin] = header[TENSOR].data_offsets;
        const bias = header['conv_in.bias'];
        const [from, to] = bias.data_offsets;
        bias.data_offsets = [begin, begin + to - from];
      }),
    code: 'invalid-safetensors',
    message: /unet/,
  },
  'missing-tensor': {
    // Renamed, so that the data has no hole.
    spoil: (model) =>
      rewriteHeader(model, (header) => {
        header['some_other.weight'] = header[TENSOR];
        delete header[TENSOR];
      }),
    code: 'missing-tensor',
    message: /conv_in\.weight/,
  },
  'misshapen-tensor': {
    spoil: (model) =>
      rewriteHeader(model, (header) => {
        const { shape } = header[TENSOR];
        header[TENSOR].shape = [shape[0] * shape[1], ...shape.slice(2)];
      }),
    code: 'shape-mismatch',
    message: /conv_in\.weight.*\d/,
  },
  'integer-tensor': {
    spoil: (model) =>
      rewriteHeader(model, (header) => {
        header[TENSOR].dtype = 'I16';
      }),
    code: 'unsupported-dtype',
    message: /conv_in\.weight.*I16/,
  },
  'configuration-that-is-no-json': {
    spoil: (model) => writeFileSync(join(model, 'unet/config.json'), '{"in_channels": 8,'),
    code: 'invalid-config',
    message: /unet\/config\.json/,
  },
  'missing-weights': {
    spoil: (model) => rmSync(join(model, UNET)),
    code: 'not-found',
    message: /unet/,
  },
};

/**
 * @param {string} model a folder with the diffusers layout
 * @returns {{ folder: string, models: Record<string, { code: string, message: RegExp }>,
 *   remove: () => void }} `folder` holds a model of each name
 */
export function breakModels(model) {
  const folder = mkdtempSync(join(tmpdir(), 'broken-models-'));
  for (const [name, { spoil }] of Object.entries(MODELS)) {
    cpSync(model, join(folder, name), { recursive: true, dereference: true });
    spoil(join(folder, name));
  }
  return { folder, models: MODELS, remove: () => rmSync(folder, { recursive: true }) };
}
