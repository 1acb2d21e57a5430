// Integers of whole rows to floats, four at a time.

struct Params {
    rows: u32,
    columns: u32,
}

@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<${FLOAT}>>;
@group(0) @binding(3) var<uniform> p: Params;

@compute @workgroup_size(${THREADS})
fn ${kernel}(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (workgroup.y * workgroups.x + workgroup.x) * ${THREADS}u + local;
    let vectors = p.columns / 4u;
    if (i < p.rows * vectors) {
        output[i] = vec4<${FLOAT}>(scaled(integers(i / vectors, i % vectors * 4u, p.columns)));
    }
}
