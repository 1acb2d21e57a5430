
// Four neighbouring columns of a row; those from `n` on are not there.
//# if VECTOR_OUT
fn store(row: u32, column: u32, value: vec4<f32>) {
    if (column < p.n) {
        output[(row * p.n + column) / 4u] = ${OUTPUT}(value);
    }
}
//# else
fn store(row: u32, column: u32, value: vec4<f32>) {
    for (var e = 0u; e < 4u; e++) {
        if (column + e < p.n) {
            output[row * p.n + column + e] = ${OUTPUT}(value[e]);
        }
    }
}
//# end

//# if BIAS
fn bias_at(column: u32) -> vec4<f32> {
//# if VECTOR_OUT
    return bias[min(column, p.n * ${1 + GATED}u - 4u) / 4u];
//# else
    let last = p.n * ${1 + GATED}u - 1u;
    return vec4<f32>(
        bias[min(column, last)], bias[min(column + 1u, last)], bias[min(column + 2u, last)], bias[min(column + 3u, last)],
    );
//# end
}
//# end

//# if ADDED
// A row for each picture.
fn added_at(row: u32, column: u32) -> vec4<f32> {
    let at = row / p.out_area * p.n;
//# if VECTOR_OUT
    return vec4<f32>(added[(at + min(column, p.n - 4u)) / 4u]);
//# else
    let last = p.n - 1u;
    return vec4<f32>(vec4<${OUTPUT}>(
        added[at + min(column, last)],
        added[at + min(column + 1u, last)],
        added[at + min(column + 2u, last)],
        added[at + min(column + 3u, last)],
    ));
//# end
}
//# end

//# if RESIDUAL
fn residual_at(row: u32, column: u32) -> vec4<f32> {
//# if VECTOR_OUT
    return vec4<f32>(residual[(row * p.n + min(column, p.n - 4u)) / 4u]);
//# else
    let last = p.n - 1u;
    let at = row * p.n;
    return vec4<f32>(vec4<${OUTPUT}>(
        residual[at + min(column, last)],
        residual[at + min(column + 1u, last)],
        residual[at + min(column + 2u, last)],
        residual[at + min(column + 3u, last)],
    ));
//# end
}
//# end

//# if ACTIVATION == GELU || GATED
// Abramowitz and Stegun 7.1.26: within 1.5e-7 of the error function.
fn gelu(x: vec4<f32>) -> vec4<f32> {
    let z = abs(x) * 0.7071067811865476;
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    // 1 - erf(z), so that far negative x go to zero smoothly.
    let tail = series * exp(-z * z);
    return 0.5 * x * select(2.0 - tail, tail, x < vec4<f32>());
}
//# end

//# if GATED
fn gated(value: vec4<f32>, gate: vec4<f32>, column: u32) -> vec4<f32> {
//# if BIAS
    return (value + bias_at(column)) * gelu(gate + bias_at(p.n + column));
//# else
    return value * gelu(gate);
//# end
}
//# end

//# if !SPLIT && !GATED
fn finish(sum: vec4<f32>, row: u32, column: u32) -> vec4<f32> {
    var value = sum;
//# if BIAS
    value += bias_at(column);
//# end
//# if ADDED
    value += added_at(row, column);
//# end
//# if ACTIVATION == QUICK_GELU
    value = value / (1.0 + exp(-1.702 * value));
//# end
//# if ACTIVATION == SILU
    value = value / (1.0 + exp(-value));
//# end
//# if ACTIVATION == GELU
    value = gelu(value);
//# end
//# if RESIDUAL
    value += residual_at(row, column);
//# end
    return value;
}
//# end
