// The one-dimensional transforms of F(m, 3), m = OUT outputs from SIDE = m + 2 inputs. Points 0, 1, -1
// and infinity for m = 2; also 2 and -2 for m = 4.

//# if OUT == 4
fn input_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return 4.0 * a - 5.0 * c + e; }
fn input_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return d + e - 4.0 * (b + c); }
fn input_2(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return e - d + 4.0 * (b - c); }
fn input_3(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return e - c + 2.0 * (d - b); }
fn input_4(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return e - c - 2.0 * (d - b); }
fn input_5(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return 4.0 * b - 5.0 * d + f; }

fn weight_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return a / 4.0; }
fn weight_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a + b + c) / -6.0; }
fn weight_2(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a - b + c) / -6.0; }
fn weight_3(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a + 2.0 * b + 4.0 * c) / 24.0; }
fn weight_4(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a - 2.0 * b + 4.0 * c) / 24.0; }
fn weight_5(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return c; }

fn output_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return a + (b + c) + (d + e); }
fn output_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return (b - c) + 2.0 * (d - e); }
fn output_2(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return (b + c) + 4.0 * (d + e); }
fn output_3(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) -> vec4<f32> { return (b - c) + 8.0 * (d - e) + f; }
//# else
fn input_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return a - c; }
fn input_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return b + c; }
fn input_2(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return c - b; }
fn input_3(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return b - d; }

fn weight_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return a; }
fn weight_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a + b + c) / 2.0; }
fn weight_2(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return (a - b + c) / 2.0; }
fn weight_3(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> { return c; }

fn output_0(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return a + b + c; }
fn output_1(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> { return b - c - d; }
//# end
