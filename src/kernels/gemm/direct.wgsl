
// An invocation computes 4 x 4 outputs straight from what is bound, for devices where few run together.
// There workgroup memory is as slow as any other, and each barrier saves and restores registers.

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(global_invocation_id) invocation: vec3<u32>,
) {
    let row = invocation.x * 4u;
    if (row >= p.m) {
        return;
    }
    let column = workgroup.y * 4u;
//# if BATCH
    input_base = workgroup.z * (p.m * p.k / 4u);
    weight_base = workgroup.z * (p.n * p.k / 4u);
//# else
    let input_base = 0u;
    let weight_base = 0u;
//# end
//# for g in 0..1 + GATED
//# for i in 0..4
    var sum_${g}_${i} = vec4<f32>();
//# end
//# end
//# if VECTOR
    // Rows and columns beyond the last compute the last once more, and are not written.
//# for g in 0..1 + GATED
//# for j in 0..4
    let weight_${g}_${j} = weight_base + (${g}u * p.n + min(column + ${j}u, p.n - 1u)) * (p.k / 4u);
//# end
//# end
//# if WINDOW
    let depth = p.channels / 4u;
//# for i in 0..4
    let corner_${i} = corner(row + ${i}u);
    let picture_${i} = (row + ${i}u) / p.out_area * p.picture;
//# end
    for (var tap = 0u; tap < p.k / p.channels; tap++) {
        let at = vec2<i32>(i32(tap % p.kernel_w), i32(tap / p.kernel_w));
        let first = tap * depth;
//# for i in 0..4
        let pixel_${i} = corner_${i} + at;
        let inside_${i} = u32(pixel_${i}.y) < p.bound_h && u32(pixel_${i}.x) < p.bound_w;
        let input_${i} = select(0u, window_pixel(picture_${i}, pixel_${i}.y, pixel_${i}.x, 0u) / 4u, inside_${i});
//# end
//# else
    {
        let depth = p.k / 4u;
        let first = 0u;
//# for i in 0..4
        let input_${i} = input_base + min(row + ${i}u, p.m - 1u) * depth;
//# end
//# end
        for (var k = 0u; k < depth; k++) {
//# for i in 0..4
//# if WINDOW
            let a_${i} = select(vec4<f32>(), vec4<f32>(input[input_${i} + k]), inside_${i});
//# else
            let a_${i} = vec4<f32>(input[input_${i} + k]);
//# end
//# end
//# for g in 0..1 + GATED
//# for j in 0..4
//# if FLOATS
            let b_${g}_${j} = weight[weight_${g}_${j} + first + k];
//# else
            let b_${g}_${j} = widen(load_weight(${g}u * p.n + min(column + ${j}u, p.n - 1u), (first + k) * 4u));
//# end
//# for i in 0..4
            sum_${g}_${i}[${j}] += dot(a_${i}, b_${g}_${j});
//# end
//# end
//# end
        }
    }
//# else
    for (var k = 0u; k < p.k; k += 4u) {
//# for i in 0..4
//# if WINDOW
        let a_${i} = load_input((row + ${i}u) / p.out_area * p.picture, corner(row + ${i}u), vec2<i32>(), 0u, k);
//# else
        let a_${i} = load_input(row + ${i}u, k);
//# end
//# end
//# for g in 0..1 + GATED
//# for j in 0..4
        let b_${g}_${j} = load_weight(${g}u * p.n + column + ${j}u, k);
//# for i in 0..4
        sum_${g}_${i}[${j}] += dot(a_${i}, b_${g}_${j});
//# end
//# end
//# end
    }
//# end
//# for i in 0..4
    if (row + ${i}u < p.m) {
//# if SPLIT
        store(workgroup.z * p.m + row + ${i}u, column, sum_0_${i});
//# else
//# if GATED
        store(row + ${i}u, column, gated(sum_0_${i}, sum_1_${i}, column));
//# else
        store(row + ${i}u, column, finish(sum_0_${i}, row + ${i}u, column));
//# end
//# end
    }
//# end
}
