//! Which tile suits which product.

use crate::kernels::source::WORKGROUPS_PER_AXIS;

/// How a workgroup cuts its part of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows of the output that a workgroup computes.
    pub rows: usize,
    /// Columns of the output, or twice those with a gate.
    pub columns: usize,
    /// Depth of a slice in workgroup memory.
    pub depth: usize,
    /// Rows that an invocation computes.
    pub tm: usize,
    /// Columns that an invocation computes.
    pub tn: usize,
    /// Width of a warp's rectangle of invocations.
    pub warp_x: usize,
    /// Slices in workgroup memory: of 2, one is written while the other is read.
    pub stages: usize,
    /// Depths multiplied in a row between jumps.
    pub unroll: usize,
}

/// Neighbouring invocations that read workgroup memory together.
const WARP: usize = 32;

impl Tile {
    /// Invocations of a workgroup.
    pub const fn threads(&self) -> usize {
        (self.rows / self.tm) * (self.columns / self.tn)
    }

    /// Bytes of workgroup memory.
    pub const fn memory(&self) -> usize {
        self.stages * self.depth * (self.rows / 4 + self.columns / 4 + 2) * 16
    }

    /// The constants of `kernel.wgsl`.
    pub fn constants(&self) -> [(&'static str, usize); 16] {
        let threads = self.threads();
        let a = self.rows * self.depth / 16;
        let b = self.columns * self.depth / 16;
        [
            ("ROWS", self.rows),
            ("COLUMNS", self.columns),
            ("DEPTH", self.depth),
            ("TM", self.tm),
            ("TN", self.tn),
            ("TX", self.columns / self.tn),
            ("TY", self.rows / self.tm),
            ("WARP", WARP),
            ("WARP_X", self.warp_x),
            ("STAGES", self.stages),
            ("UNROLL", self.unroll),
            ("THREADS", threads),
            // Blocks of 4 x 4 in a slice of each side, and of those for each invocation.
            ("A_TOTAL", a),
            ("B_TOTAL", b),
            ("A_BLOCKS", a.div_ceil(threads)),
            ("B_BLOCKS", b.div_ceil(threads)),
        ]
    }
}

/// A tile, and into how many parts the depth is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The tile.
    pub tile: Tile,
    /// Parts of the depth that run side by side and are summed by a second kernel.
    pub splits: usize,
}

// Measured on an H200 in Chromium, TFLOP/s in f32 with packed weights, by WIDE, NARROW and the tiles between them (128 x 64 and 64 x 128, two
// warps): 12288 x 2560 x 320 at 36, 39 and 38, 768 x 10240 x 1280 at 36, 41 and 39, 12288 x 320 x 1280 at 17, 36 and 36,
// 768 x 1280 x 5120 in 4 parts at 31, 36 and 34. A workgroup of one warp waits for nobody. Before reads went without jumps around
// them it was the other way round. Tiles of 8 x 8 for each invocation stay below 37, of 12 x 12 below 34, two slices
// in workgroup memory below one; halves that are widened when they are multiplied gain in no tile that matters.

/// Any number of columns, more rows than a dispatch of [`NARROW`] tiles has room for.
const WIDE: Tile =
    Tile { rows: 128, columns: 128, depth: 16, tm: 16, tn: 8, warp_x: 8, stages: 1, unroll: 4 };
/// One warp.
const NARROW: Tile = Tile { rows: 64, columns: 64, depth: 8, unroll: 8, ..WIDE };
/// A handful of rows, as of a time embedding.
const SKINNY: Tile = Tile { rows: 16, columns: 64, depth: 32, tm: 4, ..WIDE };

/// Rows up to which a product counts as [`SKINNY`].
const SKINNY_ROWS: usize = 32;
/// Least depth of a part: below, the second kernel costs more than it brings.
const PART: usize = 256;

/// The tile for many products of one size side by side.
pub const fn batch_tile() -> Tile {
    NARROW
}

/// The plan for a product of `size` rows, columns and depth on a device that allows `memory` bytes of
/// workgroup memory. Gated products are never split.
pub fn plan(size: [usize; 3], gated: bool, memory: usize) -> Plan {
    #[cfg(feature = "tuning")]
    if let Some(plan) = tuning::get() {
        return plan;
    }
    let [m, n, k] = size;
    let columns = if gated { 2 * n } else { n };
    // With as many workgroups as keep a large GPU busy.
    let (tile, busy) = match m {
        ..=SKINNY_ROWS => (SKINNY, 400),
        // No dispatch has room for more of the others.
        _ if m > NARROW.rows * WORKGROUPS_PER_AXIS => (WIDE, 1),
        _ => (NARROW, 960),
    };
    let workgroups = m.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
    let splits = if gated { 1 } else { (busy / workgroups).min(k / PART).max(1) };
    // Half as deep is half the memory.
    let tile = if tile.memory() > memory { Tile { depth: tile.depth / 2, ..tile } } else { tile };
    Plan { tile, splits }
}

#[cfg(feature = "tuning")]
mod tuning {
    use std::cell::Cell;

    use super::Plan;

    thread_local! {
        static FORCED: Cell<Option<Plan>> = const { Cell::new(None) };
    }

    pub fn get() -> Option<Plan> {
        FORCED.get()
    }

    /// Runs `work` with every product planned as `plan`, for benchmarks.
    pub fn with_plan<T>(plan: Plan, work: impl FnOnce() -> T) -> T {
        FORCED.set(Some(plan));
        let result = work();
        FORCED.set(None);
        result
    }
}
#[cfg(feature = "tuning")]
pub use tuning::with_plan;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_fit_the_default_limits_of_webgpu() {
        for size in [[12288, 320, 2880], [768, 1280, 11520], [1, 1280, 320], [77, 768, 3072]] {
            let plan = plan(size, false, 16_384);
            assert!(plan.tile.memory() <= 16_384 && plan.tile.threads() <= 256, "{size:?}");
            plan.tile.constants();
        }
    }

    #[test]
    fn there_are_workgroups_for_any_number_of_rows() {
        let plan = plan([2048 * 2048 + 1, 3, 1152], false, 16_384);
        assert!((2048 * 2048 + 1_usize).div_ceil(plan.tile.rows) <= WORKGROUPS_PER_AXIS);
    }

    #[test]
    fn small_deep_products_are_split() {
        assert!(plan([192, 1280, 11520], false, 49_152).splits > 1);
        assert_eq!(plan([12288, 320, 2880], false, 49_152).splits, 1);
    }
}
