//! Small runs of every kernel, over shapes that are odd in every way. The same on every device: what
//! one computes is compared with what another does.

use burn::tensor::{DType, Device, Tensor, TensorData};
use half::f16;

use crate::kernels::{
    self, Bits, Conv2dOptions, Epilogue, GroupNormOptions, Matrix, MatrixWriter, Packing,
    attention, combine, conv2d, geglu, group_norm, layer_norm, linear,
};

/// Where and how a case runs.
#[derive(Debug, Clone)]
pub struct Side {
    /// The device.
    pub device: Device,
    /// The type of activations.
    pub dtype: DType,
    /// Whether weights are halves in pairs.
    pub halves: bool,
    seed: u32,
}

impl Side {
    /// A side whose numbers begin anew with each case.
    pub fn new(device: Device, dtype: DType, halves: bool) -> Self {
        Self { device, dtype, halves, seed: 1 }
    }

    /// Values in -1 .. 1 that halves hold exactly, so that all sides start equal.
    fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        let mut next = || {
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| f16::from_f32(next() * scale).to_f32()).collect()
    }

    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.tensor_as(shape, self.dtype)
    }

    fn vector(&mut self, length: usize) -> Tensor<1> {
        self.tensor_as([length], DType::F32)
    }

    fn tensor_as<const D: usize>(&mut self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        let values = self.values(shape.iter().product(), 1.0);
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        Tensor::from_data(data, (&self.device, dtype))
    }

    fn matrix(&mut self, shape: [usize; 2]) -> Matrix {
        let values = self.values(shape[0] * shape[1], (shape[1] as f32).powf(-0.5));
        if self.halves {
            let halves = values.into_iter().map(f16::from_f32).collect();
            Matrix::from_f16(halves, shape, &self.device)
        } else {
            Matrix::from_f32(values, shape, &self.device)
        }
    }
}

impl Side {
    /// A matrix in integers, whatever `halves` says.
    fn integers(&mut self, bits: Bits, shape: [usize; 2]) -> Matrix {
        let values = self.values(shape[0] * shape[1], (shape[1] as f32).powf(-0.5));
        let halves = values.into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect();
        let writer = MatrixWriter::new(shape, Packing::Integers(bits), &self.device);
        let mut writer = writer.expect("rows are of whole words");
        writer.write(0, halves);
        writer.finish()
    }
}

type Run = Box<dyn Fn(&mut Side) -> Tensor<1>>;

/// A run of a kernel.
pub struct Case {
    /// What runs.
    pub name: String,
    run: Run,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Case {
    fn new<const D: usize>(
        name: impl Into<String>,
        run: impl Fn(&mut Side) -> Tensor<D> + 'static,
    ) -> Self {
        let flat = move |side: &mut Side| {
            let result = run(side);
            let count = result.shape().num_elements();
            result.reshape([count])
        };
        Self { name: name.into(), run: Box::new(flat) }
    }

    /// Runs the case; its result in one row.
    pub fn run(&self, mut side: Side) -> Tensor<1> {
        side.seed = self.name.bytes().fold(1, |hash, byte| hash * 31 % 1_000_003 + u32::from(byte));
        (self.run)(&mut side)
    }
}

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = products();
    cases.extend(convolutions());
    cases.extend(integers());
    cases.extend(attentions());
    cases.extend(norms());
    for count in [1, 3, 10] {
        cases.push(Case::new(format!("combine {count}"), move |side| {
            let terms: Vec<Tensor<3>> = (0..count).map(|_| side.tensor([3, 5, 7])).collect();
            let terms: Vec<_> =
                terms.iter().enumerate().map(|(i, term)| (0.5 - i as f64 * 0.3, term)).collect();
            combine(&terms)
        }));
    }
    for [first, second] in [[8, 12], [3, 5]] {
        cases.push(Case::new(format!("concat {first} and {second}"), move |side| {
            kernels::concat(side.tensor([2, 3, 5, first]), side.tensor([2, 3, 5, second]))
        }));
    }
    cases.push(Case::new("embedding", |side| {
        let table = side.matrix([11, 6]);
        kernels::embedding(&[vec![3, 0, 10], vec![1, 1, 7]], &table, side.dtype)
    }));
    cases
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    // Rows, outputs, inputs: one row, odd sizes, a whole tile and more.
    for [m, n, k] in [[1, 40, 32], [3, 7, 5], [70, 70, 30], [129, 128, 64], [65, 66, 52]] {
        cases.push(Case::new(format!("linear {m}x{n}x{k}"), move |side| {
            let (x, w, b) = (side.tensor([m, k]), side.matrix([n, k]), side.vector(n));
            linear(x, &w, Some(&b), Epilogue::None)
        }));
    }
    cases.push(Case::new("linear of rank 3 without bias", |side| {
        let (x, w) = (side.tensor([2, 5, 12]), side.matrix([9, 12]));
        linear(x, &w, None, Epilogue::None)
    }));
    cases.push(Case::new("linear of a view", |side| {
        let (x, w) = (side.tensor([12, 40]), side.matrix([8, 12]));
        linear(x.transpose(), &w, None, Epilogue::None)
    }));
    type Epilogues = [(&'static str, fn(&mut Side) -> Epilogue<2>); 4];
    let epilogues: Epilogues = [
        ("residual", |side| Epilogue::Residual(side.tensor([40, 24]))),
        ("quick gelu", |_| Epilogue::QuickGelu),
        ("gelu", |_| Epilogue::Gelu),
        ("silu", |_| Epilogue::Silu),
    ];
    for (name, epilogue) in epilogues {
        cases.push(Case::new(format!("linear, {name}"), move |side| {
            let (x, w, b) = (side.tensor([40, 16]), side.matrix([24, 16]), side.vector(24));
            let epilogue = epilogue(side);
            linear(x, &w, Some(&b), epilogue)
        }));
    }
    for n in [72, 71] {
        cases.push(Case::new(format!("linear in parts, {n} outputs"), move |side| {
            let (x, w, b) = (side.tensor([33, 1100]), side.matrix([n, 1100]), side.vector(n));
            let residual = side.tensor([33, n]);
            linear(x, &w, Some(&b), Epilogue::Residual(residual))
        }));
    }
    for [m, n, k] in [[5, 6, 8], [70, 100, 24], [130, 64, 16]] {
        cases.push(Case::new(format!("geglu {m}x{n}x{k}"), move |side| {
            let (x, w, b) = (side.tensor([1, m, k]), side.matrix([2 * n, k]), side.vector(2 * n));
            geglu(x, &w, &b)
        }));
    }
    cases
}

/// A convolution of `[batch, height, width, channels]` to `outputs`.
fn convolution(
    name: &str,
    shape: [usize; 4],
    outputs: usize,
    change: impl Fn(&mut Conv2dOptions, &mut Side) + 'static,
) -> Case {
    Case::new(format!("conv2d, {name}"), move |side| {
        let x = side.tensor(shape);
        let mut options = Conv2dOptions::same([3, 3]);
        change(&mut options, side);
        let [kh, kw] = options.kernel;
        let (w, b) = (side.matrix([outputs, kh * kw * shape[3]]), side.vector(outputs));
        conv2d(x, &w, Some(&b), options)
    })
}

fn convolutions() -> Vec<Case> {
    vec![
        convolution("3x3", [2, 8, 12, 16], 20, |_, _| {}),
        convolution("odd sizes", [1, 7, 9, 12], 17, |_, _| {}),
        convolution("three channels", [1, 6, 8, 3], 8, |_, _| {}),
        convolution("six channels", [1, 5, 5, 6], 4, |_, _| {}),
        convolution("1x1", [2, 5, 6, 24], 10, |options, _| {
            *options = Conv2dOptions::same([1, 1]);
        }),
        convolution("stride 2", [2, 8, 8, 8], 12, |options, _| options.stride = 2),
        convolution("stride 2, the VAE's padding", [1, 9, 8, 8], 12, |options, _| {
            options.stride = 2;
            options.padding = [0, 0, 1, 1];
        }),
        convolution("upsampled", [1, 4, 6, 8], 12, |options, _| options.upsample_2x = true),
        convolution("in parts", [1, 4, 4, 160], 68, |_, _| {}),
        convolution("residual", [1, 6, 6, 8], 10, |options, side| {
            options.residual = Some(side.tensor([1, 6, 6, 10]));
        }),
        convolution("added", [2, 3, 5, 8], 10, |options, side| {
            options.added = Some(side.tensor([2, 10]));
        }),
        convolution("added, in parts, four at a time", [2, 3, 3, 160], 68, |options, side| {
            options.added = Some(side.tensor([2, 68]));
        }),
        // Large enough for tiles.
        convolution("tiles of 6", [2, 32, 32, 64], 68, |options, side| {
            options.added = Some(side.tensor([2, 68]));
            options.residual = Some(side.tensor([2, 32, 32, 68]));
        }),
        convolution("tiles of 6, odd sizes", [3, 31, 29, 64], 64, |_, _| {}),
        convolution("tiles of 6, upsampled", [1, 23, 24, 64], 72, |options, _| {
            options.upsample_2x = true;
        }),
        convolution("tiles of 4", [2, 15, 17, 68], 64, |options, side| {
            options.residual = Some(side.tensor([2, 15, 17, 64]));
        }),
    ]
}

/// Everything that reads weights, with weights in integers.
fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (bits, name) in [(Bits::Eight, "8 bits"), (Bits::Four, "4 bits")] {
        // Groups and a part of one; one row that is split in parts.
        for [m, n, k] in [[70, 70, 104], [3, 9, 8], [2, 40, 1288]] {
            cases.push(Case::new(format!("linear {m}x{n}x{k}, {name}"), move |side| {
                let (x, w) = (side.tensor([m, k]), side.integers(bits, [n, k]));
                linear(x, &w, Some(&side.vector(n)), Epilogue::None)
            }));
        }
        cases.push(Case::new(format!("geglu, {name}"), move |side| {
            let (x, w) = (side.tensor([1, 70, 40]), side.integers(bits, [200, 40]));
            geglu(x, &w, &side.vector(200))
        }));
        for (size, [batch, height, width], [inputs, outputs]) in [
            ("direct", [2, 7, 9], [24, 10]),
            ("tiles of 6", [2, 32, 32], [64, 68]),
            ("tiles of 4", [2, 15, 17], [72, 64]),
        ] {
            cases.push(Case::new(format!("conv2d, {size}, {name}"), move |side| {
                let x = side.tensor([batch, height, width, inputs]);
                let w = side.integers(bits, [outputs, 9 * inputs]);
                conv2d(x, &w, Some(&side.vector(outputs)), Conv2dOptions::same([3, 3]))
            }));
        }
        cases.push(Case::new(format!("floats of {name}"), move |side| {
            side.integers(bits, [5, 104]).to_float(side.dtype)
        }));
    }
    cases
}

fn attentions() -> Vec<Case> {
    // Queries, keys, heads, head size, causal.
    let cases = [
        (70, 77, 2, 40, false),
        (20, 20, 2, 64, true),
        (33, 5, 1, 80, false),
        (9, 150, 2, 8, false),
        (40, 70, 2, 160, false),
        (130, 130, 1, 40, true),
        (20, 65, 1, 512, false),
        (70, 70, 1, 104, true),
        (5, 40, 1, 84, false),
        // In parts of the keys on a large GPU, the last of them short.
        (70, 530, 2, 40, false),
        (9, 1030, 3, 80, false),
    ];
    let case = |(n, m, heads, head, causal)| {
        let kind = if causal { ", causal" } else { "" };
        Case::new(format!("attention {n}x{m}, {heads} heads of {head}{kind}"), move |side| {
            let q = side.tensor([2, n, heads * head]).mul_scalar(3.0);
            let (k, v) = (side.tensor([2, m, heads * head]), side.tensor([2, m, heads * head]));
            attention(q, k, v, heads, causal)
        })
    };
    cases.into_iter().map(case).collect()
}

fn norms() -> Vec<Case> {
    let mut cases = Vec::new();
    let groups = [([2, 5, 7, 24], 4, false), ([1, 40, 50, 64], 32, true), ([1, 3, 3, 15], 5, true)];
    for (shape, groups, silu) in groups {
        cases.push(Case::new(format!("group norm {shape:?}"), move |side| {
            // A mean away from zero, where a naive variance loses digits.
            let x = side.tensor(shape).add_scalar(2.0);
            let (weight, bias) = (side.vector(shape[3]), side.vector(shape[3]));
            group_norm(x, &weight, &bias, GroupNormOptions { groups, eps: 1e-5, silu })
        }));
    }
    // Of a buffer that the norm may write over, as soon as nobody else has it.
    cases.push(Case::new("group norm in place", |side| {
        let (weight, bias) = (side.vector(64), side.vector(64));
        let norm = |x, silu| {
            let options = GroupNormOptions { groups: 16, eps: 1e-5, silu };
            group_norm(x, &weight, &bias, options)
        };
        let x = norm(side.tensor([2, 96, 90, 64]), false);
        let first = norm(x.clone(), true);
        first.add(norm(x, false))
    }));
    for shape in [[2, 7, 320], [1, 3, 13], [2, 2, 2048]] {
        cases.push(Case::new(format!("layer norm {shape:?}"), move |side| {
            let x = side.tensor(shape);
            let (weight, bias) = (side.vector(shape[2]), side.vector(shape[2]));
            layer_norm(x, &weight, &bias, 1e-5)
        }));
    }
    cases
}
