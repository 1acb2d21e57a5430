/** The tiny models as checkpoints in one file, with the names of the original implementation. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const FILES = {
  unet: 'unet/diffusion_pytorch_model.safetensors',
  vae: 'vae/diffusion_pytorch_model.safetensors',
  text_encoder: 'text_encoder/model.safetensors',
};

const RESNET = {
  norm1: 'in_layers.0',
  conv1: 'in_layers.2',
  time_emb_proj: 'emb_layers.1',
  norm2: 'out_layers.0',
  conv2: 'out_layers.3',
  conv_shortcut: 'skip_connection',
};

const VAE = {
  conv_shortcut: 'nin_shortcut',
  group_norm: 'norm',
  to_q: 'q',
  to_k: 'k',
  to_v: 'v',
  'to_out.0': 'proj_out',
};

/** Blocks of the UNet have two layers; the first of its way up has no attention. */
function unetKey(key) {
  const p = key.split('.');
  const resnet = (from) => `${RESNET[p[from]]}.${p[from + 1]}`;
  const rest = (from) => p.slice(from).join('.');
  const stage = 3 * Number(p[1]);
  const at = stage + Number(p[3]);
  const places = [
    [/^conv_in\./, () => `input_blocks.0.0.${p[1]}`],
    [/^conv_norm_out\./, () => `out.0.${p[1]}`],
    [/^conv_out\./, () => `out.2.${p[1]}`],
    [/^time_embedding\./, () => `time_embed.${p[1] === 'linear_1' ? 0 : 2}.${p[2]}`],
    [/^mid_block\.attentions/, () => `middle_block.1.${rest(3)}`],
    [/^mid_block/, () => `middle_block.${2 * Number(p[2])}.${resnet(3)}`],
    [/^down_blocks\.\d+\.resnets/, () => `input_blocks.${1 + at}.0.${resnet(4)}`],
    [/^down_blocks\.\d+\.attentions/, () => `input_blocks.${1 + at}.1.${rest(4)}`],
    [/^down_blocks/, () => `input_blocks.${stage + 3}.0.op.${p[5]}`],
    [/^up_blocks\.\d+\.resnets/, () => `output_blocks.${at}.0.${resnet(4)}`],
    [/^up_blocks\.\d+\.attentions/, () => `output_blocks.${at}.1.${rest(4)}`],
    [/^up_blocks/, () => `output_blocks.${stage + 2}.${p[1] === '0' ? 1 : 2}.conv.${p[5]}`],
  ];
  return places.find(([pattern]) => pattern.test(key))[1]();
}

/** The VAE has two blocks. */
function vaeKey(key) {
  const p = key.split('.');
  const layer = (from) => {
    const name = p.slice(from, -1).join('.');
    return `${VAE[name] ?? name}.${p.at(-1)}`;
  };
  const [side] = p;
  const places = [
    [/^\w+\.conv_norm_out/, () => `${side}.norm_out.${p[2]}`],
    [/mid_block\.attentions/, () => `${side}.mid.attn_1.${layer(4)}`],
    [/mid_block/, () => `${side}.mid.block_${Number(p[3]) + 1}.${layer(4)}`],
    [/down_blocks\.\d+\.resnets/, () => `${side}.down.${p[2]}.block.${p[4]}.${layer(5)}`],
    [/up_blocks\.\d+\.resnets/, () => `${side}.up.${1 - p[2]}.block.${p[4]}.${layer(5)}`],
    [/down_blocks/, () => `${side}.down.${p[2]}.downsample.conv.${p[6]}`],
    [/up_blocks/, () => `${side}.up.${1 - p[2]}.upsample.conv.${p[6]}`],
    [/./, () => key],
  ];
  return places.find(([pattern]) => pattern.test(key))[1]();
}

const ORIGINAL = {
  unet: (key) => `model.diffusion_model.${unetKey(key)}`,
  vae: (key) => `first_stage_model.${vaeKey(key)}`,
  text_encoder: (key) => `cond_stage_model.transformer.${key}`,
};

/** @param {string} model the folder of the tiny model */
export function singleFile(model) {
  const tensors = Object.entries(FILES).flatMap(([component, path]) =>
    Object.entries(read(join(model, path))).map(([key, tensor]) => [ORIGINAL[component](key), tensor]),
  );
  return write(tensors);
}

/**
 * The tiny model of SDXL, as CosXL-Edit comes where `isCosxl`.
 *
 * @param {string} model its folder
 * @param {Record<string, { component: string, keys: string[], transposed: boolean }>} names of `single_file_xl.json`
 */
export function singleFileXL(model, names, isCosxl = false) {
  const paths = { ...FILES, text_encoder_2: 'text_encoder_2/model.safetensors' };
  const files = Object.fromEntries(Object.entries(paths).map(([name, path]) => [name, read(join(model, path))]));
  const tensors = Object.entries(names).map(([original, { component, keys, transposed }]) => {
    const parts = keys.map((key) => files[component][key]);
    const [{ dtype, shape: [rows, ...rest] }] = parts;
    const bytes = Buffer.concat(parts.map((part) => part.bytes));
    if (!transposed) return [original, { dtype, shape: [rows * parts.length, ...rest], bytes }];
    const [columns] = rest;
    const size = bytes.length / rows / columns;
    const turned = Array.from({ length: rows * columns }, (_, i) => {
      const at = ((i % rows) * columns + Math.floor(i / rows)) * size;
      return bytes.subarray(at, at + size);
    });
    return [original, { dtype, shape: [columns, rows], bytes: Buffer.concat(turned) }];
  });
  const sigma = { dtype: 'F32', shape: [], bytes: Buffer.alloc(4) };
  return write(isCosxl ? [...tensors, ['edm_vpred.sigma_max', sigma], ['edm_vpred.sigma_min', sigma]] : tensors);
}

/** The tensors of a file by their keys. */
function read(path) {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const { __metadata__: _, ...tensors } = JSON.parse(file.subarray(8, 8 + length).toString());
  const entries = Object.entries(tensors).map(([key, { dtype, shape, data_offsets: [from, to] }]) => [
    key,
    { dtype, shape, bytes: file.subarray(8 + length + from, 8 + length + to) },
  ]);
  return Object.fromEntries(entries);
}

/** A file of tensors. */
function write(tensors) {
  const header = {};
  let end = 0;
  for (const [key, { dtype, shape, bytes }] of tensors) {
    header[key] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([size, json, ...tensors.map(([, { bytes }]) => bytes)]);
}
