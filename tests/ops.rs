//! Every operation against loops in double precision that follow its definition.

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::f16;
use instruct_pix2pix::kernels::{
    Conv2dOptions, Epilogue, GroupNormOptions, Matrix, attention, combine, conv2d, embedding,
    geglu, group_norm, layer_norm, linear,
};

/// Numbers in -1 to 1 that look random and are the same everywhere.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn take(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }
}

fn device() -> Device {
    Device::flex()
}

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&device(), DType::F32))
}

fn matrix(values: &[f32], shape: [usize; 2]) -> Matrix {
    Matrix::from_f32(values.to_vec(), shape, &device())
}

#[track_caller]
fn assert_close<const D: usize>(ours: Tensor<D>, expected: &[f64]) {
    let ours = ours.into_data().try_into_vec::<f32>().expect("f32");
    assert_eq!(ours.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let peak =
        ours.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(ours.iter().all(|x| x.is_finite()));
    assert!(peak <= 2e-6 * scale, "peak {peak:e} of {scale}");
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The normal distribution function, by the series of erf.
fn phi(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let mut term = z;
    let mut sum = z;
    for n in 1..60 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}

#[test]
fn linear_with_each_epilogue() {
    let mut numbers = Numbers(1);
    for [rows, inputs, outputs] in [[1, 1, 1], [5, 7, 3], [6, 16, 8]] {
        let (x, w) = (numbers.take(rows * inputs), numbers.take(outputs * inputs));
        let (bias, residual) = (numbers.take(outputs), numbers.take(rows * outputs));
        let plain: Vec<f64> = (0..rows * outputs)
            .map(|i| {
                let (row, output) = (i / outputs, i % outputs);
                let weights = &w[output * inputs..][..inputs];
                dot(&x[row * inputs..][..inputs], weights) + f64::from(bias[output])
            })
            .collect();
        let weight = matrix(&w, [outputs, inputs]);
        let bias = tensor(&bias, [outputs]);
        let run = |epilogue| linear(tensor(&x, [1, rows, inputs]), &weight, Some(&bias), epilogue);
        assert_close(run(Epilogue::None), &plain);
        let added: Vec<f64> = plain.iter().zip(&residual).map(|(y, r)| y + f64::from(*r)).collect();
        assert_close(run(Epilogue::Residual(tensor(&residual, [1, rows, outputs]))), &added);
        let map = |f: fn(f64) -> f64| plain.iter().map(|y| f(*y)).collect::<Vec<_>>();
        assert_close(run(Epilogue::Silu), &map(|y| y * sigmoid(y)));
        assert_close(run(Epilogue::QuickGelu), &map(|y| y * sigmoid(1.702 * y)));
        assert_close(run(Epilogue::Gelu), &map(|y| y * phi(y)));
    }
}

#[test]
fn packed_weights_are_the_same_numbers() {
    let mut numbers = Numbers(2);
    for shape in [[3, 8], [4, 7], [1, 2]] {
        let values: Vec<f16> =
            numbers.take(shape[0] * shape[1]).into_iter().map(f16::from_f32).collect();
        let floats: Vec<f32> = values.iter().map(|x| x.to_f32()).collect();
        let packed = Matrix::from_f16(values, shape, &device());
        let unpacked = packed.to_float(DType::F32).into_data().try_into_vec::<f32>().expect("f32");
        assert_eq!(unpacked, floats);
        let expected = if shape[1] % 2 == 0 { 2 } else { 4 };
        assert_eq!(packed.bytes(), shape[0] * shape[1] * expected);
    }
}

#[test]
fn geglu_gates_with_the_second_half() {
    let mut numbers = Numbers(3);
    let (rows, inputs, outputs) = (4, 6, 5);
    let (x, w) = (numbers.take(rows * inputs), numbers.take(2 * outputs * inputs));
    let bias = numbers.take(2 * outputs);
    let at = |row: usize, o: usize| {
        dot(&x[row * inputs..][..inputs], &w[o * inputs..][..inputs]) + f64::from(bias[o])
    };
    let expected: Vec<f64> = (0..rows * outputs)
        .map(|i| {
            let (row, o) = (i / outputs, i % outputs);
            let gate = at(row, o + outputs);
            at(row, o) * gate * phi(gate)
        })
        .collect();
    let weight = matrix(&w, [2 * outputs, inputs]);
    let bias = tensor(&bias, [2 * outputs]);
    assert_close(geglu(tensor(&x, [1, rows, inputs]), &weight, &bias), &expected);
}

#[test]
fn conv2d_strides_pads_upsamples_and_adds() {
    struct Case {
        size: [usize; 2],
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: [usize; 4],
        upsample: bool,
        residual: bool,
    }
    let case = |size, channels, kernel, stride, padding, upsample, residual| Case {
        size,
        channels,
        kernel,
        stride,
        padding,
        upsample,
        residual,
    };
    let cases = [
        case([5, 4], [3, 2], 3, 1, [1; 4], false, false),
        case([5, 7], [2, 3], 3, 2, [1; 4], false, false),
        case([6, 5], [2, 3], 3, 2, [0, 0, 1, 1], false, false),
        case([3, 4], [4, 4], 3, 1, [1; 4], true, false),
        case([3, 4], [5, 2], 1, 1, [0; 4], false, true),
        case([1, 1], [1, 1], 3, 1, [1; 4], false, true),
    ];
    let mut numbers = Numbers(4);
    for Case {
        size: [h, w],
        channels: [inputs, outputs],
        kernel,
        stride,
        padding,
        upsample,
        residual,
    } in cases
    {
        let batch = 2;
        let x = numbers.take(batch * h * w * inputs);
        let weights = numbers.take(outputs * kernel * kernel * inputs);
        let bias = numbers.take(outputs);
        let zoom = if upsample { 2 } else { 1 };
        let [top, left, bottom, right] = padding;
        let height = (h * zoom + top + bottom - kernel) / stride + 1;
        let width = (w * zoom + left + right - kernel) / stride + 1;
        let added = numbers.take(batch * height * width * outputs);
        let mut expected = Vec::new();
        for (b, y, z, o) in indices([batch, height, width, outputs]) {
            let mut sum = f64::from(bias[o]);
            for (ky, kx, i, _) in indices([kernel, kernel, inputs, 1]) {
                let (iy, ix) = (y * stride + ky, z * stride + kx);
                let inside = |i: usize, before: usize, n: usize| {
                    i.checked_sub(before).filter(|i| *i < n * zoom).map(|i| i / zoom)
                };
                if let (Some(iy), Some(ix)) = (inside(iy, top, h), inside(ix, left, w)) {
                    let weight = weights[((o * kernel + ky) * kernel + kx) * inputs + i];
                    sum += f64::from(x[((b * h + iy) * w + ix) * inputs + i]) * f64::from(weight);
                }
            }
            if residual {
                sum += f64::from(added[((b * height + y) * width + z) * outputs + o]);
            }
            expected.push(sum);
        }
        let options = Conv2dOptions {
            kernel: [kernel; 2],
            stride,
            padding,
            upsample_2x: upsample,
            added: None,
            residual: residual.then(|| tensor(&added, [batch, height, width, outputs])),
        };
        let weight = matrix(&weights, [outputs, kernel * kernel * inputs]);
        let x = tensor(&x, [batch, h, w, inputs]);
        assert_close(conv2d(x, &weight, Some(&tensor(&bias, [outputs])), options), &expected);
    }
}

fn indices(n: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let [_, b, c, d] = n;
    let count = n.iter().product();
    (0..count).map(move |i: usize| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

#[test]
fn attention_of_several_heads() {
    let mut numbers = Numbers(5);
    for (tokens, context, heads, width, causal) in
        [(3, 5, 2, 4, false), (6, 6, 3, 2, true), (1, 1, 1, 8, false)]
    {
        let (batch, channels) = (2, heads * width);
        let q = numbers.take(batch * tokens * channels);
        let k = numbers.take(batch * context * channels);
        let v = numbers.take(batch * context * channels);
        let mut expected = Vec::new();
        for (b, n, head, d) in indices([batch, tokens, heads, width]) {
            let query = &q[(b * tokens + n) * channels + head * width..][..width];
            let seen = if causal { n + 1 } else { context };
            let weights: Vec<f64> = (0..seen)
                .map(|m| {
                    let key = &k[(b * context + m) * channels + head * width..][..width];
                    (dot(query, key) / (width as f64).sqrt()).exp()
                })
                .collect();
            let value = |m: usize| f64::from(v[(b * context + m) * channels + head * width + d]);
            let sum: f64 = weights.iter().enumerate().map(|(m, weight)| weight * value(m)).sum();
            expected.push(sum / weights.iter().sum::<f64>());
        }
        let ours = attention(
            tensor(&q, [batch, tokens, channels]),
            tensor(&k, [batch, context, channels]),
            tensor(&v, [batch, context, channels]),
            heads,
            causal,
        );
        assert_close(ours, &expected);
    }
}

fn normalised(values: &[f64], eps: f64) -> Vec<f64> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    values.iter().map(|x| (x - mean) / (variance + eps).sqrt()).collect()
}

#[test]
fn group_norm_is_per_picture_and_group() {
    let mut numbers = Numbers(6);
    for (silu, eps) in [(false, 1e-5), (true, 1e-6)] {
        let (batch, height, width, channels, groups) = (2, 3, 4, 6, 3);
        let x = numbers.take(batch * height * width * channels);
        let (scale, shift) = (numbers.take(channels), numbers.take(channels));
        let per_group = channels / groups;
        let mut expected = vec![0.0; x.len()];
        for (b, group, ..) in indices([batch, groups, 1, 1]) {
            let places: Vec<usize> = indices([height * width, per_group, 1, 1])
                .map(|(p, c, ..)| (b * height * width + p) * channels + group * per_group + c)
                .collect();
            let values: Vec<f64> = places.iter().map(|i| f64::from(x[*i])).collect();
            for (place, value) in places.iter().zip(normalised(&values, eps)) {
                let c = place % channels;
                let y = value * f64::from(scale[c]) + f64::from(shift[c]);
                expected[*place] = if silu { y * sigmoid(y) } else { y };
            }
        }
        let options = GroupNormOptions { groups, eps, silu };
        let x = tensor(&x, [batch, height, width, channels]);
        let ours = group_norm(x, &tensor(&scale, [channels]), &tensor(&shift, [channels]), options);
        assert_close(ours, &expected);
    }
}

#[test]
fn layer_norm_is_per_token() {
    let mut numbers = Numbers(7);
    let (tokens, channels) = (5, 9);
    let x = numbers.take(tokens * channels);
    let (scale, shift) = (numbers.take(channels), numbers.take(channels));
    let expected: Vec<f64> = x
        .chunks(channels)
        .flat_map(|token| {
            normalised(&token.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), 1e-5)
        })
        .enumerate()
        .map(|(i, y)| y * f64::from(scale[i % channels]) + f64::from(shift[i % channels]))
        .collect();
    let x = tensor(&x, [1, tokens, channels]);
    let ours = layer_norm(x, &tensor(&scale, [channels]), &tensor(&shift, [channels]), 1e-5);
    assert_close(ours, &expected);
}

#[test]
fn combine_adds_scaled_terms() {
    let (a, b) = (tensor(&[1.0, -2.0], [2]), tensor(&[0.5, 4.0], [2]));
    assert_close(combine(&[(2.0, &a), (-1.0, &b)]), &[1.5, -8.0]);
    assert_close(combine(&[(3.0, &a)]), &[3.0, -6.0]);
}

#[test]
fn embedding_picks_rows() {
    let table: Vec<f16> = (0..12).map(|i| f16::from_f32(i as f32)).collect();
    let table = Matrix::from_f16(table, [6, 2], &device());
    let ours = embedding(&[vec![5, 0], vec![1, 1]], &table, DType::F32);
    assert_eq!(ours.dims(), [2, 2, 2]);
    assert_close(ours, &[10.0, 11.0, 0.0, 1.0, 2.0, 3.0, 2.0, 3.0]);
}
