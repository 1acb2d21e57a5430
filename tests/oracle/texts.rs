//! Tokenization and random numbers.

use std::path::Path;

use instruct_pix2pix::pipeline::{NoiseSource, TorchGenerator};
use instruct_pix2pix::tokenizer::ClipTokenizer;
use serde::Deserialize;

use super::compare::{Comparison, Tolerance};
use super::components::model_folder;
use super::tensors::TensorFile;
use super::{Case, Verdict};

/// The cases of a folder.
pub fn list(folder: &Path) -> Vec<Case<'_>> {
    type Parts = [(&'static str, &'static str, fn(&Path) -> Verdict); 2];
    let parts: Parts = [
        ("tokenization", "tokenization.json", tokenization),
        ("random", "random.safetensors", random),
    ];
    parts
        .into_iter()
        .filter(|(_, file, _)| folder.join(file).is_file())
        .map(|(name, _, run)| Case { name: name.into(), run: Box::new(move || run(folder)) })
        .collect()
}

/// A tokenizer from its folder.
pub fn tokenizer(folder: &Path) -> ClipTokenizer {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let settings = read("tokenizer_config.json");
    ClipTokenizer::new(&read("vocab.json"), &read("merges.txt"), Some(&settings)).expect("valid")
}

#[derive(Deserialize)]
struct Texts {
    cases: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    fast: Vec<u32>,
    padded_1: Vec<u32>,
    padded_2: Vec<u32>,
    agree: bool,
}

fn tokenization(folder: &Path) -> Verdict {
    let json = std::fs::read_to_string(folder.join("tokenization.json")).expect("readable");
    let texts: Texts = serde_json::from_str(&json).expect("valid");
    let first = tokenizer(&model_folder(folder, "sd").join("tokenizer"));
    let second_folder = model_folder(folder, "sdxl").join("tokenizer_2");
    let second = second_folder.is_dir().then(|| tokenizer(&second_folder));
    let mut comparison = Comparison::default();
    for Text { text, fast, padded_1, padded_2, agree } in texts.cases {
        comparison.equal(&format!("{text:?}"), &first.encode(&text).expect("encodes"), &fast);
        // The padded goldens are of the slow tokenizer.
        if agree {
            let ours = first.encode_padded(&text).expect("encodes");
            comparison.equal(&format!("padded {text:?}"), &ours, &padded_1);
            if let Some(second) = &second {
                let ours = second.encode_padded(&text).expect("encodes");
                comparison.equal(&format!("padded with ! {text:?}"), &ours, &padded_2);
            }
        }
    }
    comparison.verdict()
}

fn random(folder: &Path) -> Verdict {
    let file = TensorFile::open(&folder.join("random.safetensors"));
    let mut comparison = Comparison::default();
    let mut names = file.names();
    names.sort();
    let mut sequence = None;
    for name in names {
        let golden = file.f32(&name);
        let (seed, rest) = name.split_once('.').expect("SEED.SHAPE");
        let seed: u64 = seed.parse().expect("a seed");
        let mut fresh = TorchGenerator::new(seed);
        // The draws of a sequence go on from one another.
        let generator = match rest.strip_prefix("sequence.") {
            Some("0") => sequence.insert(fresh),
            Some(_) => sequence.as_mut().expect("sequences start at 0"),
            None => &mut fresh,
        };
        let ours = generator.randn(golden.values.len()).expect("never dry");
        comparison.values(&name, &ours, &golden.values, Tolerance::Relative(1e-5));
    }
    comparison.verdict()
}
