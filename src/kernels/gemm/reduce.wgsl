// Sums the parts of a split product, four columns an invocation.

struct Params {
    m: u32,
    n: u32,
    parts: u32,
    // Rows of a picture.
    out_area: u32,
}

@group(0) @binding(0) var<storage, read> parts: array<${PART}>;
@group(0) @binding(1) var<storage, read_write> output: array<${OUTPUT}>;
//# if BIAS
@group(0) @binding(2) var<storage, read> bias: array<${BIAS_TYPE}>;
//# end
//# if ADDED
@group(0) @binding(${2 + BIAS}) var<storage, read> added: array<${OUTPUT}>;
//# end
//# if RESIDUAL
@group(0) @binding(${2 + BIAS + ADDED}) var<storage, read> residual: array<${OUTPUT}>;
//# end
@group(0) @binding(${2 + BIAS + ADDED + RESIDUAL}) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    let quads = (p.n + 3u) / 4u;
    let row = index / quads;
    let column = index % quads * 4u;
    if (row >= p.m) {
        return;
    }
    var sum = vec4<f32>();
    for (var part = 0u; part < p.parts; part++) {
        let at = (part * p.m + row) * p.n + column;
//# if VECTOR_OUT
        sum += parts[at / 4u];
//# else
        for (var e = 0u; e < min(4u, p.n - column); e++) {
            sum[e] += parts[at + e];
        }
//# end
    }
    store(row, column, finish(sum, row, column));
}
