
// A workgroup computes ROWS x COLUMNS outputs, each of its four subgroups a quarter of them in blocks of 16 x 16,
// which its 32 invocations hold together. Both sides go through workgroup memory in slices DEPTH deep, as
// halves; the next slice is fetched while the current one is multiplied. Sums are in f32.

var<workgroup> tile_a: array<vec4<f16>, ${ROWS * (DEPTH / 4 + 2)}>;
var<workgroup> tile_b: array<vec4<f16>, ${COLUMNS * (DEPTH / 4 + 2)}>;
// On their way out: a block of each subgroup, with a gate its gates, too.
var<workgroup> blocks: array<vec4<f32>, ${4 * 64 * (1 + GATED)}>;

fn halves(four: ${WEIGHT}) -> vec4<f16> {
//# if SCALED
    return vec4<f16>(scaled(four));
//# else
    return four;
//# end
}

@compute @workgroup_size(128)
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let first_row = workgroup.y * ${ROWS}u;
    let first_column = workgroup.x * ${COLUMNS / (1 + GATED)}u;
    let begin = workgroup.z * p.part;
    let end = min(begin + p.part, p.k);

    // An invocation fetches fours of one depth from rows that are 512 / DEPTH apart.
    let quad = local % ${DEPTH / 4}u;
    let line = local / ${DEPTH / 4}u;
    var k = begin + quad * 4u;
//# if WINDOW
    var channel = k % p.channels;
    var tap = vec2<i32>(vec2<u32>(k / p.channels % p.kernel_w, k / p.channels / p.kernel_w));
//# end
//# for u in 0..ROWS * DEPTH / 512
    let row_${u} = first_row + line + ${u * 512 / DEPTH}u;
//# if WINDOW
    let base_${u} = row_${u} / p.out_area * p.picture;
    let corner_${u} = corner(row_${u});
//# end
    var next_a_${u}: vec4<f16>;
//# end
//# for u in 0..COLUMNS * DEPTH / 512
//# if GATED
    // Blocks of values and of their gates take turns.
    let b_line_${u} = line + ${u * 512 / DEPTH}u;
    let column_${u} = first_column + b_line_${u} / 32u * 16u + b_line_${u} % 16u + b_line_${u} / 16u % 2u * p.n;
//# else
    let column_${u} = first_column + line + ${u * 512 / DEPTH}u;
//# end
    var next_b_${u}: ${WEIGHT};
//# end

    let block_row = subgroup / 2u * ${ROWS / 2}u;
    let block_column = subgroup % 2u * ${COLUMNS / 2}u;
//# for i in 0..ROWS / 32
//# for j in 0..COLUMNS / 32
    var sum_${i}_${j}: coop_mat16x16<f32, C>;
//# end
//# end

    // The first slice is fetched before the loop, any other while the one before it is multiplied.
//# for inside in 0..2
//# if inside
    for (var depth = begin; depth < end; depth += ${DEPTH}u) {
//# for u in 0..ROWS * DEPTH / 512
        tile_a[(line + ${u * 512 / DEPTH}u) * ${DEPTH / 4 + 2}u + quad] = next_a_${u};
//# end
//# for u in 0..COLUMNS * DEPTH / 512
        tile_b[(line + ${u * 512 / DEPTH}u) * ${DEPTH / 4 + 2}u + quad] = halves(next_b_${u});
//# end
        workgroupBarrier();
        if (depth + ${DEPTH}u < end) {
//# else
        {
//# end
//# for u in 0..ROWS * DEPTH / 512
//# if WINDOW
            next_a_${u} = load_input(base_${u}, corner_${u}, tap, channel, k);
//# else
            next_a_${u} = load_input(row_${u}, k);
//# end
//# end
//# for u in 0..COLUMNS * DEPTH / 512
            next_b_${u} = load_weight(column_${u}, k);
//# end
            k += ${DEPTH}u;
//# if WINDOW
            channel += ${DEPTH}u;
            while (channel >= p.channels) {
                channel -= p.channels;
                tap.x++;
                if (tap.x == i32(p.kernel_w)) {
                    tap = vec2<i32>(0, tap.y + 1);
                }
            }
//# end
        }
//# if inside
//# for d in 0..DEPTH / 16
        {
//# for i in 0..ROWS / 32
            let a_${i} = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[(block_row + ${i * 16}u) * ${DEPTH / 4 + 2}u + ${d * 4}u], ${DEPTH / 4 + 2}u);
//# end
//# for j in 0..COLUMNS / 32
            let b_${j} = coopLoad<coop_mat16x16<f16, B>>(&tile_b[(block_column + ${j * 16}u) * ${DEPTH / 4 + 2}u + ${d * 4}u], ${DEPTH / 4 + 2}u);
//# for i in 0..ROWS / 32
            sum_${i}_${j} = coopMultiplyAdd(a_${i}, b_${j}, sum_${i}_${j});
//# end
//# end
        }
//# end
        workgroupBarrier();
    }
//# end
//# end

    let block = subgroup * ${64 * (1 + GATED)}u;
//# for i in 0..ROWS / 32
//# for j in 0..COLUMNS / 32 / (1 + GATED)
    coopStoreT(sum_${i}_${j * (1 + GATED)}, &blocks[block], 4u);
//# if GATED
    coopStoreT(sum_${i}_${j * 2 + 1}, &blocks[block + 64u], 4u);
//# end
    workgroupBarrier();
//# for e in 0..2
    {
        let at = lane + ${e * 32}u;
        let row = first_row + block_row + ${i * 16}u + at / 4u;
        let column = first_column + block_column / ${1 + GATED}u + ${j * 16}u + at % 4u * 4u;
        if (row < p.m) {
//# if SPLIT
            store(workgroup.z * p.m + row, column, blocks[block + at]);
//# else
//# if GATED
            store(row, column, gated(blocks[block + at], blocks[block + 64u + at], column));
//# else
            store(row, column, finish(blocks[block + at], row, column));
//# end
//# end
        }
    }
//# end
    workgroupBarrier();
//# end
//# end
}
