
// A workgroup computes ROWS x COLUMNS outputs, an invocation TM x TN of them in registers: a GPU's
// workgroup memory delivers about one value for every two products, so tiles of 8 x 8 starve and
// 16 x 8 do not. Both sides go through workgroup memory in slices DEPTH deep, turned so that four
// rows at one depth are a vec4. An invocation fetches blocks of 4 x 4 and turns them in registers,
// the next slice's while the current one is multiplied.

// By run of UNROLL depths, depth of the run and quad, of which one pads: an index that is no constant is compared with its
// bound at every read in a browser, and so that is the run's, once for all its reads, and the quad's, before the loop.
var<workgroup> tile_a: array<array<array<vec4<f32>, ${ROWS / 4 + 1}>, ${UNROLL}>, ${STAGES * DEPTH / UNROLL}>;
var<workgroup> tile_b: array<array<array<vec4<f32>, ${COLUMNS / 4 + 1}>, ${UNROLL}>, ${STAGES * DEPTH / UNROLL}>;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first_row = workgroup.y * ${ROWS}u;
    let first_column = workgroup.x * ${COLUMNS / (1 + GATED)}u;
//# if BATCH
    input_base = workgroup.z * (p.m * p.k / 4u);
    weight_base = workgroup.z * (p.n * p.k / 4u);
    let begin = 0u;
    let end = p.k;
//# else
    let begin = workgroup.z * p.part;
    let end = min(begin + p.part, p.k);
//# end

    // Which blocks of 4 x 4 this invocation fetches: two neighbours share 32 bytes of a row, and eight
    // write to different banks.
//# for u in 0..A_BLOCKS
    let a_block_${u} = local + ${u * THREADS}u;
    let a_quad_${u} = a_block_${u} / 2u % ${ROWS / 4}u;
    let a_depth_${u} = (a_block_${u} % 2u + a_block_${u} / ${ROWS / 2}u * 2u) * 4u;
    var a_k_${u} = begin + a_depth_${u};
    let row_${u} = first_row + a_quad_${u} * 4u;
//# if WINDOW
    var channel_${u} = a_k_${u} % p.channels;
    var kernel_${u} = vec2<i32>(vec2<u32>(a_k_${u} / p.channels % p.kernel_w, a_k_${u} / p.channels / p.kernel_w));
//# for e in 0..WINDOW_ROWS
    let base_${u}_${e} = (row_${u} + ${e}u) / p.out_area * p.picture;
    let corner_${u}_${e} = corner(row_${u} + ${e}u);
//# end
//# end
//# for e in 0..4
    var next_a_${u}_${e}: vec4<f32>;
//# end
//# end
//# for u in 0..B_BLOCKS
//# if B_TOTAL < THREADS
    // From the other end, so that nobody fetches twice while others wait.
    let b_block_${u} = (local + ${B_TOTAL}u) % ${THREADS}u;
//# else
    let b_block_${u} = local + ${u * THREADS}u;
//# end
    let b_quad_${u} = b_block_${u} / 2u % ${COLUMNS / 4}u;
    let b_depth_${u} = (b_block_${u} % 2u + b_block_${u} / ${COLUMNS / 2}u * 2u) * 4u;
    var b_k_${u} = begin + b_depth_${u};
//# if GATED
    // The first half of the columns are values, the second their gates.
    let column_${u} = first_column + b_quad_${u} * 4u
        + select(0u, p.n - ${COLUMNS / 2}u, b_quad_${u} >= ${COLUMNS / 8}u);
//# else
    let column_${u} = first_column + b_quad_${u} * 4u;
//# end
//# for e in 0..4
//# if VECTOR
    var next_b_${u}_${e}: ${WEIGHT};
//# else
    var next_b_${u}_${e}: vec4<f32>;
//# end
//# end
//# end

    // Where this invocation's outputs lie: warps are WARP_X wide, so that their reads of workgroup
    // memory have few distinct addresses.
    let warp = local / ${WARP}u;
    let lane = local % ${WARP}u;
    let tx = warp % ${TX / WARP_X}u * ${WARP_X}u + lane % ${WARP_X}u;
    let ty = warp / ${TX / WARP_X}u * ${WARP / WARP_X}u + lane / ${WARP_X}u;
//# for i in 0..TM
//# for j in 0..TN / 4
    var sum_${i}_${j} = vec4<f32>();
//# end
//# end

    var stage = 0u;
    // The first slice is fetched before the loop, any other while the one before it is multiplied, and one beyond the last in
    // vain: a jump around that would be one in the way of all others.
//# for inside in 0..2
//# if inside
    for (var depth = begin; depth < end; depth += ${DEPTH}u) {
//# if STAGES == 1
        workgroupBarrier();
//# end
//# for u in 0..A_BLOCKS
        if (${A_TOTAL >= (u + 1) * THREADS} != 0 || a_block_${u} < ${A_TOTAL}u) {
            let at = stage * ${DEPTH}u + a_depth_${u};
//# for e in 0..4
            tile_a[at / ${UNROLL}u][at % ${UNROLL}u + ${e}u][a_quad_${u}] = vec4<f32>(next_a_${u}_0[${e}], next_a_${u}_1[${e}], next_a_${u}_2[${e}], next_a_${u}_3[${e}]);
//# end
        }
//# end
//# for u in 0..B_BLOCKS
        if (${B_TOTAL >= (u + 1) * THREADS} != 0 || b_block_${u} < ${B_TOTAL}u) {
            let at = stage * ${DEPTH}u + b_depth_${u};
//# for e in 0..4
            let wide_${e} = widen(next_b_${u}_${e});
//# end
//# for e in 0..4
            tile_b[at / ${UNROLL}u][at % ${UNROLL}u + ${e}u][b_quad_${u}] = vec4<f32>(wide_0[${e}], wide_1[${e}], wide_2[${e}], wide_3[${e}]);
//# end
        }
//# end
        workgroupBarrier();
//# else
    {
//# end
//# for u in 0..A_BLOCKS
        if (${A_TOTAL >= (u + 1) * THREADS} != 0 || a_block_${u} < ${A_TOTAL}u) {
//# for e in 0..4
//# if WINDOW && WINDOW_ROWS == 1
            next_a_${u}_${e} = load_input(base_${u}_0, corner_${u}_0 + vec2<i32>(i32(${e}u * p.stride), 0), kernel_${u}, channel_${u}, a_k_${u});
//# else
//# if WINDOW
            next_a_${u}_${e} = load_input(base_${u}_${e}, corner_${u}_${e}, kernel_${u}, channel_${u}, a_k_${u});
//# else
            next_a_${u}_${e} = load_input(row_${u} + ${e}u, a_k_${u});
//# end
//# end
//# end
        }
        a_k_${u} += ${DEPTH}u;
//# if WINDOW
        channel_${u} += ${DEPTH}u;
        while (channel_${u} >= p.channels) {
            channel_${u} -= p.channels;
            kernel_${u}.x++;
            if (kernel_${u}.x == i32(p.kernel_w)) {
                kernel_${u} = vec2<i32>(0, kernel_${u}.y + 1);
            }
        }
//# end
//# end
//# for u in 0..B_BLOCKS
        if (${B_TOTAL >= (u + 1) * THREADS} != 0 || b_block_${u} < ${B_TOTAL}u) {
//# for e in 0..4
            next_b_${u}_${e} = load_weight(column_${u} + ${e}u, b_k_${u});
//# end
        }
        b_k_${u} += ${DEPTH}u;
//# end
//# if inside
        for (var s = 0u; s < ${DEPTH / UNROLL}u; s++) {
            let run = stage * ${DEPTH / UNROLL}u + s;
//# for d in 0..UNROLL
            {
//# for j in 0..TN / 4
                let b_${j} = tile_b[run][${d}][tx + ${j * TX}u];
//# end
//# for i in 0..TM / 4
                let a_${i} = tile_a[run][${d}][ty + ${i * TY}u];
//# for e in 0..4
//# for j in 0..TN / 4
                sum_${i * 4 + e}_${j} = fma(vec4<f32>(a_${i}[${e}]), b_${j}, sum_${i * 4 + e}_${j});
//# end
//# end
//# end
            }
//# end
        }
//# if STAGES == 2
        stage = 1u - stage;
//# end
//# end
    }
//# end

//# for i in 0..TM
    {
        let row = first_row + (ty + ${i / 4 * TY}u) * 4u + ${i % 4}u;
        if (row < p.m) {
//# for j in 0..TN / 4 / (1 + GATED)
//# if SPLIT
            store(workgroup.z * p.m + row, first_column + (tx + ${j * TX}u) * 4u, sum_${i}_${j});
//# else
//# if GATED
            store(row, first_column + (tx + ${j * TX}u) * 4u, gated(sum_${i}_${j}, sum_${i}_${j + TN / 8}, first_column + (tx + ${j * TX}u) * 4u));
//# else
            store(row, first_column + (tx + ${j * TX}u) * 4u, finish(sum_${i}_${j}, row, first_column + (tx + ${j * TX}u) * 4u));
//# end
//# end
//# end
        }
    }
//# end
}
