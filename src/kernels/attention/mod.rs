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
    use super::*;
    use crate::kernels::source::{Access, Wgsl, empty, float_name, on_gpu, to_tensor};

    /// Head size up to which an invocation holds two queries in registers.
    const TWO_QUERIES: usize = 48;
    /// Head size up to which it holds one.
    const ONE_QUERY: usize = 96;
    /// Bytes of keys, and of values, in workgroup memory: together under WebGPU's least limit.
    const TILE_BYTES: usize = 6_144;
    /// Keys scored together in `rows.wgsl`.
    const CHUNK: usize = 8;

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
        let (kernel, rows) = if head <= ONE_QUERY { rows(head) } else { tiles() };
        let kernel = kernel
            .define("FLOAT", float_name(q.dtype))
            .define("D4", head / 4)
            .define("CAUSAL", causal);
        let output = empty(&q, [batch, queries, channels], q.dtype);
        let scale = (head as f64).powf(-0.5) * std::f64::consts::LOG2_E;
        let parameters = [queries as u32, keys as u32, channels as u32, (scale as f32).to_bits()];
        kernel.launch(
            [queries.div_ceil(rows), heads, batch],
            &[(&q, Access::Read), (&k, Access::Read), (&v, Access::Read), (&output, Access::Write)],
            &parameters,
        );
        Some(to_tensor(output))
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

    /// For narrow heads, and the queries of a workgroup.
    fn rows(head: usize) -> (Wgsl, usize) {
        // Measured on an H100: 4096 tokens of 40 channels at 33 TFLOP/s, 1024 of 80 at 18.
        let (threads, queries) = if head <= TWO_QUERIES { (64, 2) } else { (32, 1) };
        let (most, chunk) = if head <= TWO_QUERIES { (32, CHUNK) } else { (8, CHUNK / 2) };
        let keys = (TILE_BYTES / (head * 4) / chunk * chunk).clamp(chunk, most);
        let kernel = Wgsl::new("attention_rows", include_str!("rows.wgsl")).define_all(&[
            ("THREADS", threads),
            ("QUERIES", queries),
            ("KEYS", keys),
            ("CHUNK", chunk),
        ]);
        (kernel, threads * queries)
    }

    /// For wide heads, and the queries of a workgroup.
    fn tiles() -> (Wgsl, usize) {
        let rows = 16;
        let kernel = Wgsl::new("attention_tiles", include_str!("tiles.wgsl")).define_all(&[
            ("ROWS", rows),
            ("KEYS", 64),
            ("DEPTH", 16),
            ("TX", 16),
            ("TY", 8),
        ]);
        (kernel, rows)
    }
}
