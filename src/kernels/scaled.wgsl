
//# if SCALED
// Weights in integers: `WEIGHTS` has the words, `scales` a half for each group of a row, in pairs.

// Four neighbours of a row of `columns`, from `k` on: their bits, and those of their scale.
fn integers(row: u32, k: u32, columns: u32) -> vec2<u32> {
    let groups = (columns + ${2 * GROUP - 1}u) / ${2 * GROUP}u * 2u;
    let group = row * groups + k / ${GROUP}u;
    let scale = unpack2x16float(scales[group / 2u])[group % 2u];
    let index = row * columns + k;
//# if BITS == 8
    return vec2<u32>(${WEIGHTS}[index / 4u], bitcast<u32>(scale));
//# else
    return vec2<u32>(${WEIGHTS}[index / 8u] >> (index % 8u * 4u), bitcast<u32>(scale));
//# end
}

fn scaled(four: vec2<u32>) -> vec4<f32> {
//# if BITS == 8
    let signed = vec4<i32>(vec4<u32>(four.x) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
//# else
    let signed = vec4<i32>((vec4<u32>(four.x) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - vec4<i32>(8);
//# end
    return vec4<f32>(signed) * bitcast<f32>(four.y);
}
//# end
