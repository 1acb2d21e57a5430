//! Scaled dot-product attention over several heads.

#[cfg(feature = "flex")]
mod reference;

use burn::tensor::Tensor;

use super::on_gpu_or;

/// `softmax(q k^T / sqrt(d)) v` for each head, where head `h` owns the channels `h * d .. (h + 1) * d`.
///
/// `causal` hides later tokens from earlier ones, as in CLIP's text encoder. The softmax is in `f32`.
///
/// On a GPU, nothing of the size of queries x keys is ever stored.
///
/// # Shapes
/// `q`: `[B, N, heads * d]`; `k`, `v`: `[B, M, heads * d]`; the result: `[B, N, heads * d]`.
pub fn attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    heads: usize,
    causal: bool,
) -> Tensor<3> {
    on_gpu_or!(
        gpu::attention(&q, &k, &v, heads, causal),
        reference::attention(q, k, v, heads, causal)
    )
}

/// Source: Dao et al., "FlashAttention"; Milakov and Gimelshein, "Online normalizer calculation for
/// softmax".
#[cfg(feature = "wgpu")]
mod gpu {
    use burn::tensor::DType;
    use burn_wgpu::CubeTensor;

    use super::*;
    use crate::kernels::source::{
        Access, Wgsl, empty, float_name, has_subgroups, is_narrow, line, on_gpu, scratch,
        to_tensor, workgroup_memory,
    };

    /// How `rows.wgsl` shares its work.
    struct Rows {
        /// Invocations of a workgroup.
        threads: usize,
        /// Queries of an invocation, or of several that share their channels.
        queries: usize,
        /// Invocations that share the channels of a query: one or two.
        parts: usize,
        /// Keys in workgroup memory.
        keys: usize,
        /// Keys scored together; divides `keys`.
        chunk: usize,
    }

    impl Rows {
        /// With as many keys in workgroup memory as there is room for, of `bytes` each.
        fn new(
            threads: usize,
            queries: usize,
            parts: usize,
            most_keys: usize,
            bytes: usize,
        ) -> Self {
            let keys = (TILE_BYTES / bytes / CHUNK * CHUNK).clamp(CHUNK, most_keys);
            Self { threads, queries, parts, keys, chunk: CHUNK }
        }
    }

    /// Keys scored together.
    const CHUNK: usize = 8;
    /// Bytes of keys and values in workgroup memory.
    const TILE_BYTES: usize = 10_240;
    /// Invocations that a large GPU has under way twice over: with fewer the last of them run alone for long.
    ///
    /// Measured on an H200 in Chromium, f32, without subgroups, TFLOP/s whole, in 2 parts and in 4: 4096 tokens of 40 channels 25.7, 34.8 and
    /// 33.7, 1024 of 80 23.5, 24.4 and 23.6 (with subgroups 23.3, 21.7 and 25.8).
    const BUSY: usize = 98_304;
    /// Least keys of a part.
    const PART: usize = 256;
    /// Invocations of a workgroup of `combine.wgsl`.
    const COMBINE_THREADS: usize = 256;
    /// Bytes of workgroup memory of `tiles.wgsl` with slices 32 deep.
    const TILES_BYTES: usize = 16_640;

    /// The way that suits heads of `fours` times four channels, if any does.
    ///
    /// Measured on an H100, TFLOP/s: 4096 tokens of 40 channels at 33 in f32 and 42 in f16, 1024 of 80 at
    /// 22.5 (21.7 without subgroups) and 29. With more than 13 fours of f32 to an invocation, registers spill; four parts of 40
    /// channels are slower than tiles. Narrow devices
    /// were measured on SwiftShader, which has no registers to lose, and on no hardware.
    fn rows(fours: usize, half: bool, narrow: bool) -> Option<Rows> {
        let bytes = fours * 4 * if half { 4 } else { 8 };
        let rows = |threads, queries, parts, keys| Rows::new(threads, queries, parts, keys, bytes);
        match (fours, half) {
            (..=13, _) if narrow => Some(Rows { chunk: 4, ..rows(16, 4, 1, 32) }),
            (..=13, true) => Some(rows(128, 2, 1, 64)),
            (..=26, true) => Some(rows(128, 1, 1, 32)),
            (..=13, false) => Some(rows(64, 2, 1, 32)),
            (..=26, false) if fours.is_multiple_of(2) => Some(rows(64, 2, 2, 32)),
            _ => None,
        }
    }

    pub fn attention(
        q: &Tensor<3>,
        k: &Tensor<3>,
        v: &Tensor<3>,
        heads: usize,
        causal: bool,
    ) -> Option<Tensor<3>> {
        let [batch, queries, channels] = q.dims();
        let [_, keys, _] = k.dims();
        let head = channels / heads;
        if !head.is_multiple_of(4) {
            let [q, k, v] = [q, k, v].map(|x| widen(x, heads));
            // The kernel scales by the wider heads.
            let wide = head.next_multiple_of(4);
            let q = q.mul_scalar((wide as f64 / head as f64).sqrt());
            let y = attention(&q, &k, &v, heads, causal)?;
            let y = y.reshape([batch, queries, heads, wide]).narrow(3, 0, head);
            return Some(y.reshape([batch, queries, channels]));
        }
        let (q, k, v) = (on_gpu(q)?, on_gpu(k)?, on_gpu(v)?);
        let half = q.dtype == DType::F16;
        let narrow = is_narrow(&q);
        let rows = rows(head / 4, half, narrow);
        let parts = match &rows {
            Some(rows) if !narrow && !causal => rows.parts_of(keys, queries, heads * batch),
            _ => 1,
        };
        // Of whole tiles, so that none is without keys.
        let tile = rows.as_ref().map_or(1, |rows| rows.keys);
        let part = keys.div_ceil(parts).next_multiple_of(tile);
        let parts = keys.div_ceil(part);
        let (kernel, rows) = match rows {
            Some(rows) => rows.kernel(head / 4, half, narrow),
            None => tiles(head, workgroup_memory(&q)),
        };
        let output = empty(&q, [batch, queries, channels], q.dtype);
        let split = (parts > 1).then(|| {
            let partial = scratch(&q, [parts, batch, queries, channels], DType::F32);
            (partial, scratch(&q, [parts, batch, queries, heads], DType::F32))
        });
        let kernel = kernel
            .define("FLOAT", float_name(q.dtype))
            .define("OUTPUT", if split.is_some() { "f32" } else { float_name(q.dtype) })
            .define("D4", head / 4)
            .define("CAUSAL", causal)
            .define("SPLIT", split.is_some())
            .define("SUBGROUPS", has_subgroups(&q));
        let scale = (head as f64).powf(-0.5) * std::f64::consts::LOG2_E;
        let scale = (scale as f32).to_bits() as usize;
        let parameters = [queries, keys, channels, scale, batch, part].map(|x| x as u32);
        let workgroups = [queries.div_ceil(rows), heads, batch * parts];
        let inputs = [&q, &k, &v].map(|tensor| (tensor, Access::Read));
        match &split {
            None => {
                let buffers = [inputs.as_slice(), &[(&output, Access::Write)]].concat();
                kernel.launch(workgroups, &buffers, &parameters);
            }
            Some((partial, logs)) => {
                let outputs = [(partial, Access::Write), (logs, Access::Write)];
                let buffers = [inputs.as_slice(), &outputs].concat();
                kernel.launch(workgroups, &buffers, &parameters);
                combine(partial, logs, &output, head / 4, [batch * queries, channels / 4, parts]);
            }
        }
        Some(to_tensor(output))
    }

    /// Weighs the results of parts of the keys, for heads of `fours` times four channels; `size` is the queries of all
    /// pictures, the fours of all heads and the parts.
    fn combine(
        partial: &CubeTensor,
        logs: &CubeTensor,
        output: &CubeTensor,
        fours: usize,
        size: [usize; 3],
    ) {
        let [rows, stride, _] = size;
        Wgsl::new("attention_combine", include_str!("combine.wgsl"))
            .define("FLOAT", float_name(output.dtype))
            .define("D4", fours)
            .define("THREADS", COMBINE_THREADS)
            .launch(
                line((rows * stride).div_ceil(COMBINE_THREADS)),
                &[(partial, Access::Read), (logs, Access::Read), (output, Access::Write)],
                &size.map(|x| x as u32),
            );
    }

    impl Rows {
        /// Into how many parts the keys of so many queries, and heads of all pictures, are cut.
        fn parts_of(&self, keys: usize, queries: usize, heads: usize) -> usize {
            let invocations =
                queries.div_ceil(self.queries_of_a_workgroup()) * heads * self.threads;
            let parts = (BUSY + invocations / 2) / invocations;
            parts.min(keys / PART).max(1)
        }

        /// Queries of a workgroup.
        fn queries_of_a_workgroup(&self) -> usize {
            self.threads / self.parts * self.queries
        }

        /// The kernel, and the queries of a workgroup.
        fn kernel(self, fours: usize, half: bool, narrow: bool) -> (Wgsl, usize) {
            // All of a tile at once; where the CPU plays the GPU that gains nothing and takes long to compile.
            let reads = if narrow { 1 } else { (self.keys * fours).div_ceil(self.threads) };
            let kernel = Wgsl::new("attention_rows", include_str!("rows.wgsl"))
                .define("HALF", half)
                .define("RESULT", if half { "short" } else { "o" })
                .define_all(&[
                    ("THREADS", self.threads),
                    ("QUERIES", self.queries),
                    ("PARTS", self.parts),
                    ("KEYS", self.keys),
                    ("CHUNK", self.chunk),
                    ("READS", reads),
                ]);
            (kernel, self.queries_of_a_workgroup())
        }
    }

    /// Adds zeros to each head, up to a multiple of the four numbers that are read at a time; they change no product.
    /// Only toy models have such heads.
    fn widen(x: &Tensor<3>, heads: usize) -> Tensor<3> {
        let [batch, rows, channels] = x.dims();
        let head = channels / heads;
        let zeros = head.next_multiple_of(4) - head;
        let x = x.clone().reshape([batch, rows, heads, head]);
        let zeros = Tensor::<4>::zeros([batch, rows, heads, zeros], &x.device()).cast(x.dtype());
        Tensor::cat(vec![x, zeros], 3).reshape([batch, rows, heads * head.next_multiple_of(4)])
    }

    /// For all others, and the queries of a workgroup.
    fn tiles(head: usize, memory: usize) -> (Wgsl, usize) {
        let rows = 16;
        // Measured on an H200 in Chromium, ms, by 16 deep and 128 invocations, 32 and 128, 32 and 64: 4096 tokens of 512 channels
        // 3.1, 2.7 and 2.0, 256 of 160 0.09, 0.13 and slower.
        let (depth, ty) = if head >= 256 && memory > TILES_BYTES { (32, 4) } else { (16, 8) };
        let kernel = Wgsl::new("attention_tiles", include_str!("tiles.wgsl")).define_all(&[
            ("ROWS", rows),
            ("KEYS", 64),
            ("DEPTH", depth),
            ("TX", 16),
            ("TY", ty),
        ]);
        (kernel, rows)
    }
}
