// Normalises a run of pixels with the sums of `statistics.wgsl`.

struct Params {
    channels: u32,
    pixels: u32,
    groups: u32,
    // Pixels of a run of the statistics.
    run: u32,
    runs: u32,
    // Pixels that a workgroup normalises.
    pixels_here: u32,
    eps: f32,
}

//# if IN_PLACE
@group(0) @binding(0) var<storage, read_write> input: array<${VALUE}>;
//# else
@group(0) @binding(0) var<storage, read> input: array<${VALUE}>;
@group(0) @binding(4) var<storage, read_write> output: array<${VALUE}>;
//# end
@group(0) @binding(1) var<storage, read> sums: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<${WIDE}>;
@group(0) @binding(3) var<storage, read> bias: array<${WIDE}>;
@group(0) @binding(${5 - IN_PLACE}) var<uniform> p: Params;

// Mean and reciprocal deviation of each group.
var<workgroup> moments: array<vec2<f32>, ${GROUPS}>;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = p.channels / p.groups;
    let picture = workgroup.y * p.pixels * p.channels;
    for (var group = local; group < p.groups; group += ${THREADS}u) {
        let first = (workgroup.y * p.groups + group) * (p.runs + 1u);
        var sum = vec2<f32>();
        for (var run = 0u; run < p.runs; run++) {
            sum += sums[first + run];
        }
        // Not read from the picture, where another workgroup may have been already.
        let origin = sums[first + p.runs].x;
        sum /= f32(p.pixels * width);
        moments[group] = vec2<f32>(origin + sum.x, inverseSqrt(max(sum.y - sum.x * sum.x, 0.0) + p.eps));
    }
    workgroupBarrier();
    let first = workgroup.x * p.pixels_here;
    let begin = (picture + first * p.channels) / ${LANES}u;
    let count = (min(first + p.pixels_here, p.pixels) - first) * p.channels / ${LANES}u;
    for (var i = local; i < count; i += ${THREADS}u) {
        let channel = i * ${LANES}u % p.channels;
        var x = ${WIDE}(input[begin + i]);
//# if LANES == 4
//# for e in 0..4
        let moments_${e} = moments[(channel + ${e}u) / width];
//# end
        let mean = vec4<f32>(moments_0.x, moments_1.x, moments_2.x, moments_3.x);
        let scale = vec4<f32>(moments_0.y, moments_1.y, moments_2.y, moments_3.y);
//# else
        let mean = moments[channel / width].x;
        let scale = moments[channel / width].y;
//# end
        x = (x - mean) * scale * weight[channel / ${LANES}u] + bias[channel / ${LANES}u];
//# if SILU
        x = x / (1.0 + exp(-x));
//# end
//# if IN_PLACE
        input[begin + i] = ${VALUE}(x);
//# else
        output[begin + i] = ${VALUE}(x);
//# end
    }
}
