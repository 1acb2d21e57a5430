// output[M, N] = input[M, K] * weight[N, K]^T, where the rows of `input` may be windows of pictures: what is
// bound, and how it is read.
//
// A third axis of workgroups has parts of the depth (SPLIT) or products of their own (BATCH); either
// way its results lie one after the other.

struct Params {
    m: u32,
    // Columns of the output.
    n: u32,
    k: u32,
    // Depth of each part of a split product.
    part: u32,
    channels: u32,
    width: u32,
    // Elements of a picture.
    picture: u32,
    // Height and width of what the window slides over: twice the picture's when it is upsampled.
    bound_h: u32,
    bound_w: u32,
    out_w: u32,
    out_area: u32,
    kernel_w: u32,
    stride: u32,
    pad_top: u32,
    pad_left: u32,
}

@group(0) @binding(0) var<storage, read> input: array<${INPUT}>;
@group(0) @binding(1) var<storage, read> weight: array<${STORED}>;
//# if SCALED
// Halves in pairs, one for each group of a row.
@group(0) @binding(2) var<storage, read> scales: array<u32>;
//# end
@group(0) @binding(${2 + SCALED}) var<storage, read_write> output: array<${OUTPUT}>;
//# if BIAS
@group(0) @binding(${3 + SCALED}) var<storage, read> bias: array<${BIAS_TYPE}>;
//# end
//# if ADDED
@group(0) @binding(${3 + SCALED + BIAS}) var<storage, read> added: array<${OUTPUT}>;
//# end
//# if RESIDUAL
@group(0) @binding(${3 + SCALED + BIAS + ADDED}) var<storage, read> residual: array<${OUTPUT}>;
//# end
@group(0) @binding(${3 + SCALED + BIAS + ADDED + RESIDUAL}) var<uniform> p: Params;

//# if BATCH
// Where the matrices of this workgroup's product begin.
var<private> input_base: u32;
var<private> weight_base: u32;
//# end

//# if WINDOW
// Where the window of an output row begins, relative to its picture. A row beyond the last sees
// nothing of any picture.
fn corner(row: u32) -> vec2<i32> {
    let at = vec2<u32>(row % p.out_w, row % p.out_area / p.out_w) * p.stride;
    let padding = vec2<u32>(p.pad_left, p.pad_top);
    return select(vec2<i32>(-0x8000), vec2<i32>(at) - vec2<i32>(padding), row < p.m);
}

// Where a channel of the pixel (y, x) of the picture at `base` is.
fn window_pixel(base: u32, y: i32, x: i32, channel: u32) -> u32 {
    return base + ((u32(y) >> ${UPSAMPLE}u) * p.width + (u32(x) >> ${UPSAMPLE}u)) * p.channels + channel;
}

// Four values of the window at `corner` in the picture at `base`, from depth `k` on, which is channel
// `channel` of the window's pixel `kernel`. Nothing jumps around a read, so that all reads of an invocation are under way
// at once; what lies outside, or beyond the depth, is read from elsewhere and counts as zero.
fn load_input(base: u32, corner: vec2<i32>, kernel: vec2<i32>, channel: u32, k: u32) -> vec4<${LANE}> {
    var value = vec4<${LANE}>();
//# if VECTOR
    let at = corner + kernel;
//# if ALIGNED
    let inside = u32(at.y) < p.bound_h && u32(at.x) < p.bound_w;
//# else
    let inside = k < p.k && u32(at.y) < p.bound_h && u32(at.x) < p.bound_w;
//# end
    value = select(value, vec4<${LANE}>(input[select(0u, window_pixel(base, at.y, at.x, channel) / 4u, inside)]), inside);
//# else
    for (var e = 0u; e < 4u; e++) {
        let tap = (k + e) / p.channels;
        let at = corner + vec2<i32>(i32(tap % p.kernel_w), i32(tap / p.kernel_w));
        if (k + e < p.k && u32(at.y) < p.bound_h && u32(at.x) < p.bound_w) {
            value[e] = ${LANE}(input[window_pixel(base, at.y, at.x, (k + e) % p.channels)]);
        }
    }
//# end
    return value;
}
//# else
// A row beyond the last is the last once more, and so is a depth, which counts as zero unless nobody multiplies it.
fn load_input(row: u32, k: u32) -> vec4<${LANE}> {
    var value = vec4<${LANE}>();
//# if VECTOR
    let at = (min(row, p.m - 1u) * p.k + min(k, p.k - 4u)) / 4u;
//# if BATCH
    value = vec4<${LANE}>(input[input_base + at]);
//# else
    value = vec4<${LANE}>(input[at]);
//# end
//# if !ALIGNED
    value = select(vec4<${LANE}>(), value, k < p.k);
//# end
//# else
    for (var e = 0u; e < 4u; e++) {
        if (k + e < p.k && row < p.m) {
            value[e] = ${LANE}(input[row * p.k + k + e]);
        }
    }
//# end
    return value;
}
//# end

//# if VECTOR
// Packed as they are, for the registers' sake; beyond the last as with `load_input`.
fn load_weight(row: u32, k: u32) -> ${WEIGHT} {
    let line = min(row, p.n * ${1 + GATED}u - 1u);
    let at = min(k, p.k - 4u);
//# if SCALED
    let value = integers(line, at, p.k);
//# else
//# if BATCH
    let value = weight[weight_base + (line * p.k + at) / 4u];
//# else
    let value = weight[(line * p.k + at) / 4u];
//# end
//# end
//# if ALIGNED
    return value;
//# else
    return select(${WEIGHT}(), value, k < p.k);
//# end
}

fn widen(four: ${WEIGHT}) -> vec4<f32> {
//# if SCALED
    return scaled(four);
//# else
//# if PACKED
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
//# else
    return vec4<f32>(four);
//# end
//# end
}
//# else
fn load_weight(row: u32, k: u32) -> vec4<f32> {
    var value = vec4<f32>();
    for (var e = 0u; e < 4u; e++) {
        if (k + e < p.k && row < p.n * ${1 + GATED}u) {
            let at = row * p.k + k + e;
//# if PACKED
            value[e] = unpack2x16float(weight[at / 2u])[at % 2u];
//# else
            value[e] = weight[at];
//# end
        }
    }
    return value;
}

fn widen(four: vec4<f32>) -> vec4<f32> {
    return four;
}
//# end
