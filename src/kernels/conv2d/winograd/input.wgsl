// Tiles of pictures to SIDE * SIDE matrices of [tiles, channels].

struct Params {
    // Tiles of this slab, and the first.
    tiles: u32,
    first: u32,
    // Vectors of a pixel.
    vectors: u32,
    width: u32,
    // Height and width of what the window slides over: twice the picture's when it is upsampled.
    bound_h: u32,
    bound_w: u32,
    // Tiles of a picture's height and width.
    tiles_h: u32,
    tiles_w: u32,
    // Vectors of a picture.
    picture: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> input: array<${VALUE}>;
@group(0) @binding(1) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> p: Params;

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
    let x = i32(tile % p.tiles_w * ${OUT}u) - i32(p.pad_left);
    let y = i32(tile / p.tiles_w % p.tiles_h * ${OUT}u) - i32(p.pad_top);
    let base = tile / (p.tiles_w * p.tiles_h) * p.picture + vector;
//# for j in 0..SIDE
//# for i in 0..SIDE
    var d_${i}_${j} = vec4<f32>();
    if (u32(y + ${i}) < p.bound_h && u32(x + ${j}) < p.bound_w) {
        d_${i}_${j} = vec4<f32>(input[base + ((u32(y + ${i}) >> ${UPSAMPLE}u) * p.width + (u32(x + ${j}) >> ${UPSAMPLE}u)) * p.vectors]);
    }
//# end
//# for i in 0..SIDE
//# if OUT == 4
    let t_${i}_${j} = input_${i}(d_0_${j}, d_1_${j}, d_2_${j}, d_3_${j}, d_4_${j}, d_5_${j});
//# else
    let t_${i}_${j} = input_${i}(d_0_${j}, d_1_${j}, d_2_${j}, d_3_${j});
//# end
//# end
//# end
//# for i in 0..SIDE
//# for j in 0..SIDE
//# if OUT == 4
    output[(${i * SIDE + j}u * p.tiles + slot) * p.vectors + vector] = input_${j}(t_${i}_0, t_${i}_1, t_${i}_2, t_${i}_3, t_${i}_4, t_${i}_5);
//# else
    output[(${i * SIDE + j}u * p.tiles + slot) * p.vectors + vector] = input_${j}(t_${i}_0, t_${i}_1, t_${i}_2, t_${i}_3);
//# end
//# end
//# end
}
