// Windows [outputs, 3, 3, channels] to SIDE * SIDE matrices of [outputs, channels].

struct Params {
    // Windows of this slab, and the first.
    outputs: u32,
    first: u32,
    // Vectors of a tap.
    vectors: u32,
}

@group(0) @binding(0) var<storage, read> input: array<${WEIGHT}>;
//# if SCALED
@group(0) @binding(1) var<storage, read> scales: array<u32>;
//# end
@group(0) @binding(${1 + SCALED}) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(${2 + SCALED}) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    let row = index / p.vectors;
    let vector = index % p.vectors;
    if (row >= p.outputs) {
        return;
    }
//# for j in 0..3
//# for i in 0..3
//# if SCALED
    let g_${i}_${j} = scaled(integers(p.first + row, (${i * 3 + j}u * p.vectors + vector) * 4u, 36u * p.vectors));
//# else
//# if PACKED
    let word_${i}_${j} = input[((p.first + row) * 9u + ${i * 3 + j}u) * p.vectors + vector];
    let g_${i}_${j} = vec4<f32>(unpack2x16float(word_${i}_${j}.x), unpack2x16float(word_${i}_${j}.y));
//# else
    let g_${i}_${j} = input[((p.first + row) * 9u + ${i * 3 + j}u) * p.vectors + vector];
//# end
//# end
//# end
//# for i in 0..SIDE
    let t_${i}_${j} = weight_${i}(g_0_${j}, g_1_${j}, g_2_${j});
//# end
//# end
//# for i in 0..SIDE
//# for j in 0..SIDE
    output[(${i * SIDE + j}u * p.outputs + row) * p.vectors + vector] = weight_${j}(t_${i}_0, t_${i}_1, t_${i}_2);
//# end
//# end
}
