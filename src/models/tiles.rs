//! Pictures in overlapping squares whose seams are blended.
//!
//! Source: diffusers `models/autoencoders/autoencoder_kl.py` (`tiled_decode`, `blend_v`, `blend_h`).

use burn::tensor::Tensor;

/// The share of a tile that overlaps its neighbour.
const TILE_OVERLAP: f64 = 0.25;

/// A cut of a picture into overlapping squares, `tiled_encode` and `tiled_decode` of diffusers.
pub struct Tiles {
    /// Side of a tile before the network.
    pub size: usize,
    /// Side of a tile after it.
    pub output: usize,
}

impl Tiles {
    /// Applies `network` tile by tile; nothing where `x` is no larger than one.
    pub fn run(
        &self,
        x: &Tensor<4>,
        network: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Option<Tensor<4>> {
        let [_, height, width, _] = x.dims();
        if height <= self.size && width <= self.size {
            return None;
        }
        let step = (self.size as f64 * (1.0 - TILE_OVERLAP)) as usize;
        let blend = (self.output as f64 * TILE_OVERLAP) as usize;
        let keep = self.output - blend;
        let mut rows: Vec<Vec<Tensor<4>>> = Vec::new();
        for top in (0..height).step_by(step) {
            let tile = |left: usize| {
                let (h, w) = (self.size.min(height - top), self.size.min(width - left));
                network(x.clone().narrow(1, top, h).narrow(2, left, w))
            };
            rows.push((0..width).step_by(step).map(tile).collect());
        }
        let mut result = Vec::new();
        for i in 0..rows.len() {
            let mut line = Vec::new();
            for j in 0..rows[i].len() {
                if i > 0 {
                    rows[i][j] = blend_edges(&rows[i - 1][j], &rows[i][j], blend, 1);
                }
                if j > 0 {
                    rows[i][j] = blend_edges(&rows[i][j - 1], &rows[i][j], blend, 2);
                }
                let tile = rows[i][j].clone();
                let [_, h, w, _] = tile.dims();
                line.push(tile.narrow(1, 0, keep.min(h)).narrow(2, 0, keep.min(w)));
            }
            result.push(Tensor::cat(line, 2));
        }
        Some(Tensor::cat(result, 1))
    }
}

/// `next` with its first `extent` rows (`axis` 1) or columns (`axis` 2) faded in over `previous`'s last.
fn blend_edges(previous: &Tensor<4>, next: &Tensor<4>, extent: usize, axis: usize) -> Tensor<4> {
    let before = previous.dims()[axis];
    let length = next.dims()[axis];
    let extent = extent.min(before).min(length);
    if extent == 0 {
        return next.clone();
    }
    let mut shape = [1; 4];
    shape[axis] = extent;
    let rising: Vec<f32> = (0..extent).map(|i| i as f32 / extent as f32).collect();
    let rising = Tensor::<1>::from_data(rising.as_slice(), (&next.device(), next.dtype()));
    let rising = rising.reshape(shape);
    let falling = rising.clone().neg().add_scalar(1.0);
    let edge = previous.clone().narrow(axis, before - extent, extent).mul(falling);
    let edge = edge.add(next.clone().narrow(axis, 0, extent).mul(rising));
    if extent == length {
        return edge;
    }
    let rest = next.clone().narrow(axis, extent, length - extent);
    Tensor::cat(vec![edge, rest], axis)
}
