{{ enable }}
@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> output: array<vec2<{{ float }}>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    // A dispatch has at most 65535 workgroups on an axis, so large ones are folded in two.
    let first = ((workgroup.y * workgroups.x + workgroup.x) * 256u + local) * {{ words_per_invocation }}u;
    for (var i = first; i < min(first + {{ words_per_invocation }}u, arrayLength(&words)); i++) {
        output[i] = vec2<{{ float }}>(unpack2x16float(words[i]));
    }
}
