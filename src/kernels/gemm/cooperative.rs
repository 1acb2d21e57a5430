//! Products by cooperative matrices: what the units for small matrices of halves (tensor cores) do for a subgroup.
//! wgpu has them natively as an experiment, browsers not at all: a faster path where it is there, never a need.

use burn::tensor::DType;
use burn_wgpu::CubeTensor;

use crate::kernels::Bits;
use crate::kernels::matrix::{Buffer, Packing};
use crate::kernels::source::{has_matrices, workgroup_memory};

/// Invocations of a workgroup: four subgroups of 32.
#[cfg(test)]
const THREADS: usize = 128;
/// Rows from which on tiles of [`SMALL`] are not mostly empty.
const ROWS: usize = 33;
/// Bytes of workgroup memory that a tile may take.
const MEMORY: usize = 32 << 10;
/// Least depth of a part of a split product: 768 x 1280 x 1280 runs at 83 TFLOP/s whole and at 52 in two parts.
const PART: usize = 1280;

/// How a workgroup cuts its part of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows of the output.
    pub rows: usize,
    /// Columns of the output, or twice those with a gate.
    pub columns: usize,
    /// Depth of a slice in workgroup memory.
    pub depth: usize,
}

// Measured on an H100 (wgpu 30, Vulkan), TFLOP/s of rows x columns x depth, by SMALL and by LARGE: 4096 x 4096 x 4096 94
// and 156, 12288 x 2560 x 320 97 and 129; 12288 x 320 x 2880 101 and 78, 3072 x 640 x 5760 97 and 70, 768 x 1280 x 11520 87
// and 38. Two slices in workgroup memory, eight subgroups or one fewer are all slower than these.

/// Many outputs.
const LARGE: Tile = Tile { rows: 128, columns: 128, depth: 32 };
/// Any other product.
const SMALL: Tile = Tile { rows: 64, columns: 64, depth: 64 };
/// Workgroups of [`LARGE`] and of [`SMALL`] that keep a large GPU busy.
const BUSY: [usize; 2] = [960, 480];

impl Tile {
    /// The constants of `cooperative.wgsl`.
    pub const fn constants(&self) -> [(&'static str, usize); 3] {
        [("ROWS", self.rows), ("COLUMNS", self.columns), ("DEPTH", self.depth)]
    }

    /// Workgroups of a product.
    const fn workgroups(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }
}

/// Whether a product of `input` with rows of `depth`, in runs of `channels`, is for cooperative matrices.
pub fn suits(
    input: &CubeTensor,
    weight: &Buffer,
    rows: usize,
    depth: usize,
    channels: usize,
) -> bool {
    // Weights that are kept in full are kept for their digits, and those of 4 bits take longer to widen than to multiply: a
    // step of Stable Diffusion 1.5 takes 68 ms with them here, 64 by the other kernels; with 8 bits 52 and 60.
    let kept = matches!(weight.packing, Packing::Halves | Packing::Integers(Bits::Eight));
    let halves = input.dtype == DType::F16 && kept;
    let fours = depth.is_multiple_of(4) && channels.is_multiple_of(4);
    halves && fours && rows >= ROWS && has_matrices(input) && workgroup_memory(input) >= MEMORY
}

/// The tile for a product of `size` rows, columns and depth, and into how many parts the depth is cut. Gated products are
/// never split.
pub fn plan(size: [usize; 3], gated: bool) -> (Tile, usize) {
    let [m, n, k] = size;
    let columns = if gated { 2 * n } else { n };
    if LARGE.workgroups(m, columns) >= BUSY[0] && columns.is_multiple_of(LARGE.columns) {
        return (LARGE, 1);
    }
    let splits = if gated { 1 } else { BUSY[1] / SMALL.workgroups(m, columns) };
    (SMALL, splits.min(k / PART).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_their_memory_and_their_workgroup() {
        for tile in [SMALL, LARGE] {
            let slices = (tile.rows + tile.columns) * (tile.depth / 4 + 2) * 8;
            let blocks = 2 * THREADS / 32 * 1024;
            assert!(slices + blocks <= MEMORY, "{tile:?}");
            assert_eq!(tile.rows * tile.depth / 4 % THREADS, 0, "{tile:?}");
        }
    }

    #[test]
    fn large_products_have_large_tiles_and_small_deep_ones_are_split() {
        assert_eq!(plan([12288, 2560, 320], true), (LARGE, 1));
        assert_eq!(plan([12288, 320, 2880], false), (SMALL, 1));
        assert_eq!(plan([192, 1280, 11520], false), (SMALL, 8));
    }
}
