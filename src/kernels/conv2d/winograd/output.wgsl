// SIDE * SIDE matrices of [tiles, outputs] to OUT x OUT pixels of each tile, and what follows a
// convolution.

struct Params {
    // Tiles of this slab, and the first.
    tiles: u32,
    first: u32,
    // Vectors of a pixel that this slab has.
    vectors: u32,
    height: u32,
    width: u32,
    // Tiles of a picture's height and width.
    tiles_h: u32,
    tiles_w: u32,
    // Vectors of a whole pixel, and the first of this slab's.
    stride: u32,
    first_vector: u32,
}

@group(0) @binding(0) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> output: array<${VALUE}>;
//# if BIAS
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
//# end
//# if ADDED
@group(0) @binding(${2 + BIAS}) var<storage, read> added: array<${VALUE}>;
//# end
//# if RESIDUAL
@group(0) @binding(${2 + BIAS + ADDED}) var<storage, read> residual: array<${VALUE}>;
//# end
@group(0) @binding(${2 + BIAS + ADDED + RESIDUAL}) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    let slot = index / p.vectors;
    let vector = index % p.vectors;
    if (slot >= p.tiles) {
        return;
    }
    let tile = p.first + slot;
    let x = tile % p.tiles_w * ${OUT}u;
    let y = tile / p.tiles_w % p.tiles_h * ${OUT}u;
    let picture = tile / (p.tiles_w * p.tiles_h);
//# for j in 0..SIDE
//# for i in 0..SIDE
    let m_${i}_${j} = input[(${i * SIDE + j}u * p.tiles + slot) * p.vectors + vector];
//# end
//# for i in 0..OUT
//# if OUT == 4
    let t_${i}_${j} = output_${i}(m_0_${j}, m_1_${j}, m_2_${j}, m_3_${j}, m_4_${j}, m_5_${j});
//# else
    let t_${i}_${j} = output_${i}(m_0_${j}, m_1_${j}, m_2_${j}, m_3_${j});
//# end
//# end
//# end
    let column = p.first_vector + vector;
    var extra = vec4<f32>();
//# if BIAS
    extra += bias[column];
//# end
//# if ADDED
    extra += vec4<f32>(added[picture * p.stride + column]);
//# end
//# for i in 0..OUT
//# for j in 0..OUT
    if (y + ${i}u < p.height && x + ${j}u < p.width) {
        let at = ((picture * p.height + y + ${i}u) * p.width + x + ${j}u) * p.stride + column;
//# if OUT == 4
        var value = extra + output_${j}(t_${i}_0, t_${i}_1, t_${i}_2, t_${i}_3, t_${i}_4, t_${i}_5);
//# else
        var value = extra + output_${j}(t_${i}_0, t_${i}_1, t_${i}_2, t_${i}_3);
//# end
//# if RESIDUAL
        value += vec4<f32>(residual[at]);
//# end
        output[at] = ${VALUE}(value);
    }
//# end
//# end
}
