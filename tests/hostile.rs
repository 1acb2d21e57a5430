//! Input that wants to do harm: whatever the bytes are, parsers refuse them or read them, without
//! a panic, and without more memory than the input gives reason for.
//!
//! Ten thousand inputs for each parser; a million with `FULL=1` in the environment, as
//! `cargo xtask test --full` has it. The same ones each time, so that a failure can be repeated.

#![expect(unsafe_code, reason = "the allocator that counts is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, ready};
use instruct_pix2pix::cache::{Alone, Archive, Cache, MANIFEST, Member, MemoryStore, git_blob};
use instruct_pix2pix::error::Result;
use instruct_pix2pix::hub::{
    Body, Fetch, FileReader, Hub, OnArrival, Piece, Request, Response, fetch_tree,
};
use instruct_pix2pix::image::ClipImageProcessor;
use instruct_pix2pix::models::{
    AutoencoderKLConfig, ClipTextConfig, SafetyCheckerConfig, UNet2DConditionConfig,
};
use instruct_pix2pix::schedulers::{self, SchedulerConfig, StepOptions, Timesteps};
use instruct_pix2pix::tokenizer::ClipTokenizer;
use instruct_pix2pix::weights::lora::{self, Targets};
use instruct_pix2pix::weights::pickle::{Item, Pickle, is_torch_file};
use instruct_pix2pix::weights::{self, Dtype, Header, StateDict, header};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};

/// Counts what each thread holds, and what it asks for.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST_HELD: Cell<isize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn count(more: isize, asked: usize) {
    // A thread that ends has no counters any more, and measures nothing.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + more);
        MOST_HELD.with(|most| most.set(most.get().max(held.get())));
        LARGEST.with(|largest| largest.set(largest.get().max(asked)));
    });
}

// SAFETY: all is the system allocator's, whose answers are handed on as they are.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout.size());
        // SAFETY: the caller keeps what `GlobalAlloc` asks of it; so too below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize), 0);
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize, layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize, size);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a call allocated, bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    /// The largest single allocation.
    largest: usize,
    /// The most that was held at one time, beyond what was held before.
    most: usize,
}

fn measure<T>(call: impl FnOnce() -> T) -> (T, Memory) {
    let before = HELD.get();
    MOST_HELD.set(before);
    LARGEST.set(0);
    let value = call();
    let most = (MOST_HELD.get() - before).max(0) as usize;
    (value, Memory { largest: LARGEST.get(), most })
}

/// What a parser may allocate for an input of `length` bytes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// In one piece, beyond the input's length.
    largest: usize,
    /// In all, beyond the input's length.
    most: usize,
}

impl Limits {
    fn check(self, memory: Memory, length: usize) -> std::result::Result<(), String> {
        let Self { largest, most } = self;
        if memory.largest > length + largest || memory.most > length + most {
            return Err(format!("{memory:?} for {length} bytes; {self:?} are allowed beyond that"));
        }
        Ok(())
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// How an input is made from a valid one. Places are shares of the whole.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Truncate(Index),
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Insert(Index, Vec<u8>),
    /// A word of JSON in place of another.
    Word(Index, &'static str),
    /// Eight bytes as a length or an offset.
    Number(Index, u64),
}

/// What stands in JSON where something else is expected.
const WORDS: &[&str] = &[
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "8",
    "64",
    "65",
    "1000",
    "65537",
    "1048577",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e999",
    "-0.0",
    "0.5",
    "1e-320",
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[0,0]",
    "[1,1,1,1,1,1,1,1,1,1,1,1]",
    "\"\"",
    "\"a\"",
    "\"F32\"",
    "\"I64\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "NaN",
    "-Infinity",
    "[[[[[[[[[[[[[[[[",
    "\"shape\"",
    "\"data_offsets\"",
    "{\"a\":{\"a\":{}}}",
];

const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    255,
    256,
    65535,
    65536,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    100_000_000,
    1 << 53,
    1 << 62,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (index(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        1 => index().prop_map(Mutation::Truncate),
        1 => (index(), 1..32_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => (index(), index(), 1..64_usize).prop_map(|(from, to, n)| Mutation::Copy(from, to, n)),
        1 => (index(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        4 => (index(), select(WORDS)).prop_map(|(at, word)| Mutation::Word(at, word)),
        1 => (index(), select(NUMBERS)).prop_map(|(at, number)| Mutation::Number(at, number)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, byte) => bytes[at.index(length)] = *byte,
            Self::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Self::Truncate(at) => bytes.truncate(at.index(length)),
            Self::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + count));
            }
            Self::Copy(from, to, count) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece = bytes[from..length.min(from + count)].to_vec();
                bytes.splice(to..to, piece);
            }
            Self::Insert(at, piece) => {
                let at = at.index(length);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Word(at, word) => {
                if let Some(old) = word_at(bytes, at.index(length)) {
                    bytes.splice(old, word.bytes());
                }
            }
            Self::Number(at, number) => {
                let at = at.index(length);
                let end = length.min(at + 8);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
        }
    }
}

/// The first word of JSON, a number, a name or a text, from `at` on.
fn word_at(bytes: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let is_break = |byte: &u8| b",:[]{} \n\t".contains(byte);
    let start = at + bytes[at..].iter().position(|byte| !is_break(byte))?;
    let end = start + bytes[start..].iter().position(is_break).unwrap_or(bytes.len() - start);
    Some(start..end)
}

/// How many inputs are tried, of a parser that takes some microseconds.
fn inputs() -> u32 {
    match std::env::var("FULL") {
        Ok(full) if full == "1" => 1_000_000,
        _ => 10_000,
    }
}

/// Feeds a parser with random bytes and with valid files that have been changed. `parse` says
/// whether it could read them, and what it has found wrong itself.
fn feed(
    inputs: u32,
    files: &[Vec<u8>],
    limits: Limits,
    parse: impl Fn(&[u8]) -> std::result::Result<bool, String>,
) {
    for file in files {
        assert_eq!(parse(file), Ok(true), "what is to be changed must be valid");
    }
    let originals = files.to_vec();
    let changed = (any::<Index>(), vec(mutation(), 1..4)).prop_map(move |(file, mutations)| {
        let mut bytes = originals[file.index(originals.len())].clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    });
    let strategy = prop_oneof![15 => changed.boxed(), 1 => vec(any::<u8>(), 0..256).boxed()];
    let config = ProptestConfig {
        cases: inputs,
        failure_persistence: None,
        max_shrink_iters: 4096,
        rng_seed: RngSeed::Fixed(0x5eed),
        ..ProptestConfig::default()
    };
    let (read, worst) = (Cell::new(0_u32), Cell::new(Memory::default()));
    let outcome = TestRunner::new(config).run(&strategy, |bytes| {
        let (outcome, memory) = measure(|| parse(&bytes));
        read.set(read.get() + u32::from(outcome.map_err(TestCaseError::fail)?));
        let Memory { largest, most } = worst.get();
        worst.set(Memory { largest: largest.max(memory.largest), most: most.max(memory.most) });
        limits.check(memory, bytes.len()).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    println!("{inputs} inputs, {} of them read, at most {:?}", read.get(), worst.get());
    // Else all are broken too badly to get past the first check.
    assert!(read.get() > inputs / 200, "{} of {inputs} could be read", read.get());
    assert!(read.get() < inputs - inputs / 200, "{} of {inputs} could be read", read.get());
}

fn fixture(path: &str) -> Vec<u8> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracle");
    fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file with a header, its tensors all zeros.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn safetensors_headers() {
    let two = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]},
        "a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#;
    let files = [
        fixture("adapters/ti_single.safetensors"),
        fixture("adapters/ti_multi.safetensors"),
        fixture("adapters/ti_xl.safetensors"),
        safetensors(two, 12),
        safetensors("{}", 0),
        safetensors(r#"{"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]}}"#, 8),
    ];
    let limits = Limits { largest: 64 * KIB, most: 64 * KIB };
    feed(inputs(), &files, limits, |bytes| {
        // A server may say anything of the file's size.
        for size in [0, u64::MAX, 1 << 40] {
            let _ = Header::length("x", bytes, size);
            let _ = Header::parse("x", bytes, size);
        }
        let Ok(header) = Header::parse("x", bytes, bytes.len() as u64) else {
            return Ok(false);
        };
        let mut end = header.tensors.first().map_or(bytes.len() as u64, |first| first.start);
        for tensor in &header.tensors {
            if tensor.start != end || tensor.end < tensor.start {
                return Err(format!("{tensor:?} does not follow byte {end}"));
            }
            end = tensor.end;
            let elements: usize = tensor.shape.iter().product();
            if let Ok(dtype) = tensor.dtype
                && (elements * dtype.size()) as u64 != tensor.end - tensor.start
            {
                return Err(format!("{tensor:?} is not as long as its shape"));
            }
        }
        if end != bytes.len() as u64 {
            return Err(format!("the tensors end at byte {end} of {}", bytes.len()));
        }
        Ok(true)
    });
}

#[test]
fn shard_indexes() {
    let files = [
        br#"{"metadata":{"total_size":12},"weight_map":{"a":"x-1.safetensors"}}"#.to_vec(),
        br#"{"weight_map":{"a":"x-1.safetensors","b":"x-2.safetensors","c":"x-1.safetensors"}}"#
            .to_vec(),
        br#"{"weight_map":{}}"#.to_vec(),
    ];
    let limits = Limits { largest: 16 * KIB, most: 16 * KIB };
    feed(inputs(), &files, limits, |bytes| {
        let Ok(shards) = weights::shards("x.index.json", bytes) else { return Ok(false) };
        match shards.iter().find(|name| name.contains(['/', '\\']) || name.starts_with('.')) {
            Some(name) => Err(format!("`{name}` leads elsewhere")),
            None => Ok(true),
        }
    });
}

/// A pickle in the container from before torch 1.6: `{"a": tensor}` of one storage of floats.
fn old_pickle() -> Vec<u8> {
    let mut file = Vec::new();
    let mut pickle = |operations: &[u8]| {
        file.extend([0x80, 2]);
        file.extend(operations);
        file.push(b'.');
    };
    let magic = 0x1950_a86a_20f9_469c_fc6c_i128.to_le_bytes();
    pickle(&[&[0x8a, 10][..], &magic[..10]].concat());
    pickle(b"M\xe9\x03");
    pickle(b"}X\x0d\0\0\0little_endian\x88s");
    let mut object = b"}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n".to_vec();
    object.extend(b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x07");
    object.extend(b"NtQK\x01K\x03K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtRs");
    pickle(&object);
    pickle(b"]X\x01\0\0\x000a");
    file.extend(7_u64.to_le_bytes());
    file.extend([0; 28]);
    file
}

#[test]
fn pickles() {
    let files = [fixture("adapters/ti_a1111.pt"), old_pickle()];
    let limits = Limits { largest: 64 * KIB, most: 128 * KIB };
    feed(inputs(), &files, limits, |bytes| {
        let Ok(pickle) = Pickle::parse("x.pt", bytes) else { return Ok(false) };
        let mut items = vec![pickle.root()];
        // Some only, since a broken file may contain itself.
        for _ in 0..100 {
            let Some(item) = items.pop() else { break };
            items.extend(item.items().into_iter().flatten().take(10));
            items.extend(item.entries().into_iter().flatten().take(10).map(|(_, value)| value));
            check_item(item, bytes.len())?;
        }
        Ok(true)
    });
}

fn check_item(item: Item<'_>, length: usize) -> std::result::Result<(), String> {
    item.as_f64();
    item.as_str();
    let Some(tensor) = item.as_tensor() else { return Ok(()) };
    let count = tensor.shape().iter().product::<usize>();
    if count > length {
        return Err(format!("{count} elements in {length} bytes"));
    }
    match tensor.to_host() {
        Ok(host) if host.to_f32().len() != count => Err(format!("not {count} values")),
        _ => Ok(()),
    }
}

/// Adapters come as whole files in either format.
#[test]
fn state_dictionaries() {
    let files =
        [fixture("adapters/ti_a1111.pt"), fixture("adapters/ti_multi.safetensors"), old_pickle()];
    let limits = Limits { largest: 64 * KIB, most: 128 * KIB };
    feed(inputs(), &files, limits, |bytes| {
        is_torch_file(bytes);
        Ok(StateDict::parse("x", bytes).is_ok())
    });
}

/// A file of zeros behind a header, whose bytes are made when they are asked for: its last ones first.
struct Zeros {
    header: Vec<u8>,
    size: u64,
    left: u64,
}

/// Bytes of a piece, no multiple of a tensor's.
const PIECE: u64 = 300_001;

impl FileReader for Zeros {
    fn size(&self) -> u64 {
        self.size
    }

    fn head<'a>(
        &'a mut self,
        length: u64,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(ready(Ok(self.header[..length as usize].to_vec())))
    }

    fn next<'a>(
        &'a mut self,
        _: &'a mut OnArrival<'_>,
    ) -> LocalBoxFuture<'a, Result<Option<Piece>>> {
        let (start, end) = (self.left.saturating_sub(PIECE), self.left);
        self.left = start;
        // The header's own are as good as any: they are not looked at again.
        let bytes = Rc::new(vec![0; (end - start) as usize]);
        Box::pin(ready(Ok((end > 0).then_some(Piece { start, bytes }))))
    }

    fn finish<'a>(&'a mut self, _: &'a mut OnArrival<'_>) -> LocalBoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn reject(&mut self) -> LocalBoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}

/// A LoRA may be larger than all memory that a page is to take, so its tensors are held one at a time.
#[test]
fn loras_are_read_tensor_by_tensor() {
    let config = fixture("models/tiny-sd-ip2p/unet/config.json");
    let config = String::from_utf8(config).expect("a text");
    let mut unet = UNet2DConditionConfig::parse("config.json", &config).expect("valid").init();
    let targets = Targets::new(&mut [("unet", &mut unet)]);
    let attention = "unet.down_blocks.0.attentions.0.transformer_blocks.0";
    let mut tensors = Vec::new();
    for layer in ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q"] {
        for (factor, shape) in [("lora_A", [8192, 32]), ("lora_B", [32, 8192])] {
            tensors.push((format!("{attention}.{layer}.{factor}.weight"), shape));
        }
    }
    let entries = tensors.iter().map(|(key, shape)| (key.as_str(), Dtype::F32, &shape[..]));
    let header = header(entries);
    let tensor = 8192 * 32 * 4;
    let size = header.len() + tensors.len() * tensor;
    let mut whole = header.clone();
    whole.resize(size, 0);
    // Two tensors at most, one of which has begun, and a piece.
    let limits = Limits { largest: tensor, most: 2 * tensor + PIECE as usize + 64 * KIB };
    let mut kept = 0;
    let mut keep = |tensor: weights::HostTensor, _: &[usize]| kept += tensor.bytes().len();
    let (read, memory) = measure(|| lora::parse("x", &whole, &targets, &mut keep));
    assert_eq!(read.expect("valid").layers.len(), 5);
    limits.check(memory, 0).expect("parsed in little memory");
    // What torch writes too, which is there whole.
    let torch = StateDict::parse("x", &whole).expect("valid").to_pickle();
    let (read, memory) = measure(|| lora::parse("x", &torch, &targets, &mut keep));
    assert_eq!(read.expect("valid").layers.len(), 5);
    limits.check(memory, 0).expect("parsed in little memory");
    let mut file = Zeros { header, size: size as u64, left: size as u64 };
    let read = lora::read("x", &mut file, &targets, &mut keep);
    let (read, memory) = measure(|| pollster::block_on(read));
    assert_eq!(read.expect("valid").layers.len(), 5);
    limits.check(memory, 0).expect("read in little memory");
    assert_eq!(kept, 3 * tensors.len() * tensor);
}

/// The memory of an empty model, whose size a configuration decides within bounds.
const EMPTY_MODEL: Limits = Limits { largest: 4 * MIB, most: 16 * MIB };

/// Feeds the parser of a configuration, and builds what could be read.
fn feed_config<T>(
    files: &[&str],
    parse: impl Fn(&str) -> Result<T>,
    build: impl Fn(T) -> std::result::Result<(), String>,
) {
    let files: Vec<_> = files.iter().map(|path| fixture(&format!("models/{path}"))).collect();
    let limits = Limits { largest: 32 * KIB, most: 64 * KIB };
    // The parser's own memory is checked inside; what it makes is not its.
    feed(inputs(), &files, EMPTY_MODEL, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (config, memory) = nested(|| parse(&text));
        limits.check(memory, text.len())?;
        let Ok(config) = config else { return Ok(false) };
        build(config)?;
        Ok(true)
    });
}

/// As [`measure`], inside what is measured.
fn nested<T>(call: impl FnOnce() -> T) -> (T, Memory) {
    let (most, largest) = (MOST_HELD.get(), LARGEST.get());
    let (value, memory) = measure(call);
    MOST_HELD.set(most.max(MOST_HELD.get()));
    LARGEST.set(largest.max(LARGEST.get()));
    (value, memory)
}

#[test]
fn configurations_of_text_encoders() {
    let files =
        ["tiny-sd-ip2p/text_encoder/config.json", "tiny-sdxl-ip2p/text_encoder_2/config.json"];
    let parse = |text: &str| ClipTextConfig::parse("config.json", text);
    feed_config(&files, parse, |config| {
        drop(config.init());
        Ok(())
    });
}

#[test]
fn configurations_of_autoencoders() {
    let files = ["tiny-sd-ip2p/vae/config.json", "tiny-sdxl-ip2p/vae/config.json"];
    let parse = |text: &str| AutoencoderKLConfig::parse("config.json", text);
    feed_config(&files, parse, |config| {
        config.scale_factor();
        drop(config.init());
        Ok(())
    });
}

#[test]
fn configurations_of_unets() {
    let files = ["tiny-sd-ip2p/unet/config.json", "tiny-sdxl-ip2p/unet/config.json"];
    let parse = |text: &str| UNet2DConditionConfig::parse("config.json", text);
    feed_config(&files, parse, |config| {
        config.text_channels();
        drop(config.init());
        Ok(())
    });
}

#[test]
fn configurations_of_safety_checkers() {
    let files = ["tiny-sd-ip2p/safety_checker/config.json"];
    let parse = |text: &str| SafetyCheckerConfig::parse("config.json", text);
    feed_config(&files, parse, |config| {
        drop(config.init());
        Ok(())
    });
}

#[test]
fn configurations_of_image_processors() {
    let files = ["tiny-sd-ip2p/feature_extractor/preprocessor_config.json"];
    let parse = |text: &str| ClipImageProcessor::parse("preprocessor_config.json", text);
    feed_config(&files, parse, |_| Ok(()));
}

#[test]
fn configurations_of_schedulers() {
    let files = [
        "tiny-sd-ip2p/scheduler/scheduler_config.json",
        "tiny-sdxl-ip2p/scheduler/scheduler_config.json",
    ];
    let parse = |text: &str| SchedulerConfig::from_json("scheduler_config.json", text);
    let turn = Cell::new(0);
    feed_config(&files, parse, |config| {
        // One class after the other: all read the same file, each makes of it what it can.
        turn.set((turn.get() + 1) % CLASSES.len());
        let Ok(mut scheduler) = schedulers::from_config(CLASSES[turn.get()], &config) else {
            return Ok(());
        };
        for count in [1, 3] {
            if scheduler.set_timesteps(&Timesteps::Count(count), StepOptions::default()).is_ok()
                && scheduler.timesteps().is_empty()
            {
                return Err(format!("{} has no steps", CLASSES[turn.get()]));
            }
        }
        Ok(())
    });
}

const CLASSES: &[&str] = &[
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

/// A server that answers everything with the same bytes.
struct Same(Vec<u8>);

impl Fetch for Same {
    fn get(&self, _: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(ready(Ok(Response {
            total: Some(self.0.len() as u64),
            partial: false,
            start: None,
            url: String::new(),
            content_type: None,
            validator: None,
            next: None,
            body: Box::new(Once(Some(self.0.clone()))),
        })))
    }

    fn wait(&self, _: Duration) -> LocalBoxFuture<'_, Result<()>> {
        // What stalls is given up at once, unless there is something to read.
        Box::pin(ready(Ok(())))
    }
}

struct Once(Option<Vec<u8>>);

impl Body for Once {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(ready(Ok(self.0.take())))
    }
}

#[test]
fn listings_of_the_hub() {
    let (blob, sha256) = ("0123456789abcdef0123456789abcdef01234567", "ab".repeat(32));
    let listing = format!(
        r#"[{{"type":"directory","path":"unet","oid":"{blob}","size":0}},
            {{"type":"file","path":"model_index.json","oid":"{blob}","size":12}},
            {{"type":"file","path":"unet/x.safetensors","oid":"{blob}","size":90,
              "lfs":{{"oid":"{sha256}","size":90,"pointerSize":134}}}}]"#
    );
    let hub =
        Hub { repo: "a/b".into(), revision: blob.into(), endpoint: "http://x".into(), token: None };
    let limits = Limits { largest: 16 * KIB, most: 16 * KIB };
    feed(inputs(), &[listing.into_bytes(), b"[]".to_vec()], limits, |bytes| {
        let fetch = Same(bytes.to_vec());
        let Ok(entries) = pollster::block_on(fetch_tree(&fetch, &hub)) else { return Ok(false) };
        match entries.iter().find(|entry| entry.path.len() > bytes.len()) {
            Some(entry) => Err(format!("{entry:?} is not in the listing")),
            None => Ok(true),
        }
    });
}

/// An archive in memory.
struct Bytes(Vec<u8>);

impl Archive for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, start: u64, length: u64) -> LocalBoxFuture<'_, Result<Vec<u8>>> {
        let all = self.0.len() as u64;
        let (start, end) = (start.min(all), start.saturating_add(length).min(all));
        Box::pin(ready(Ok(self.0[start as usize..end as usize].to_vec())))
    }
}

/// An archive with a manifest and the files that it should speak of.
fn archive(manifest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, content) in [(MANIFEST, manifest), ("a.json", b"{}"), ("b.txt", b"hello\n")] {
        let member = Member { path: path.into(), size: content.len() as u64 };
        bytes.extend(member.header().expect("a short path"));
        bytes.extend(content);
        bytes.resize(bytes.len() + member.padding(), 0);
    }
    bytes
}

/// Whether an archive can be imported; what it leaves in the cache must be whole then.
fn import(bytes: Vec<u8>) -> std::result::Result<bool, String> {
    let imported = async {
        let cache = Cache::open(Rc::new(MemoryStore::default()), Rc::new(Alone), None).await;
        let cache = cache.map_err(|e| format!("an empty store: {e}"))?;
        let size = bytes.len() as u64;
        let Ok(name) = cache.import(&Bytes(bytes)).await else { return Ok(false) };
        let models = cache.list().await.map_err(|e| e.to_string())?;
        match models.iter().find(|model| model.model == name) {
            Some(model) if model.bytes <= size => Ok(true),
            Some(model) => Err(format!("{} bytes from {size}", model.bytes)),
            None => Err("it is not listed".into()),
        }
    };
    pollster::block_on(imported)
}

#[test]
fn archives() {
    let (a, b) = (git_blob(b"{}"), git_blob(b"hello\n"));
    let manifest = format!(
        r#"{{"model":"a/b","commit":"{a}","revisions":["main"],"listed":true,"absent":[],
            "complete":true,"used":1.0,"files":{{"a.json":{{"size":2,"content":"git-{a}"}},
            "b.txt":{{"size":6,"content":"git-{b}"}}}}}}"#
    );
    let limits = Limits { largest: 64 * KIB, most: 128 * KIB };
    feed(inputs(), &[manifest.clone().into_bytes()], limits, |bytes| import(archive(bytes)));
    // Few of these get past the checksums.
    let whole = archive(manifest.as_bytes());
    feed(inputs() / 4, &[whole], limits, |bytes| import(bytes.to_vec()));
}

/// A tokenizer compiles expressions each time: a hundredth of the inputs.
#[test]
fn tokenizers() {
    let vocabulary = r#"{"<|startoftext|>":0,"<|endoftext|>":1,"a":2,"b</w>":3,"ab</w>":4}"#;
    let settings = r#"{"pad_token":{"content":"<|endoftext|>"},"unk_token":"<|endoftext|>"}"#;
    // Between the three files, which no JSON has.
    let files = [format!("{vocabulary}\x01#version: 0.2\na b</w>\n\x01{settings}").into_bytes()];
    let limits = Limits { largest: 4 * MIB, most: 16 * MIB };
    feed(inputs() / 100, &files, limits, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.splitn(3, '\x01');
        let mut part = || parts.next().unwrap_or_default();
        Ok(ClipTokenizer::new(part(), part(), Some(part())).is_ok())
    });
}

/// Where a few bytes become many, the length is what must be bounded.
#[test]
fn long_inputs_stay_within_their_bounds() {
    let limits = Limits { largest: 64 * MIB, most: 160 * MIB };
    let check = |what: &str, bytes: Vec<u8>, parse: fn(&[u8]) -> bool| {
        let (_, memory) = measure(|| parse(&bytes));
        println!("{what}: {} bytes, {memory:?}", bytes.len());
        if let Err(error) = limits.check(memory, bytes.len()) {
            panic!("{what}: {error}");
        }
    };
    let header = |bytes: &[u8]| Header::parse("x", bytes, bytes.len() as u64).is_ok();
    for length in [1 << 20, (8 << 20) - 200, 15 << 20] {
        let ones = "1,".repeat(length / 2);
        let shape = format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}1],"data_offsets":[0,4]}}}}"#);
        check("a shape of many axes", safetensors(&shape, 4), header);
        let tensor =
            |i: usize| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let tensors: Vec<_> = (0..length / 60).map(tensor).collect();
        check("many tensors", safetensors(&format!("{{{}}}", tensors.join(",")), 0), header);
        let metadata: Vec<_> = (0..length / 12).map(|i| format!(r#""{i}":"""#)).collect();
        let metadata = format!(r#"{{"__metadata__":{{{}}}}}"#, metadata.join(","));
        check("much metadata", safetensors(&metadata, 0), header);
        check("depth", safetensors(&"[".repeat(length), 0), header);
        let names: Vec<_> = (0..length / 20).map(|i| format!(r#""{i}":"{i}""#)).collect();
        let index = format!(r#"{{"weight_map":{{{}}}}}"#, names.join(","));
        check("an index of many files", index.into_bytes(), |bytes| {
            weights::shards("x", bytes).is_ok()
        });
    }
    let config = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).expect("ASCII");
        UNet2DConditionConfig::parse("x", text).is_ok()
            || AutoencoderKLConfig::parse("x", text).is_ok()
            || ClipTextConfig::parse("x", text).is_ok()
            || SchedulerConfig::from_json("x", text).is_ok()
            || ClipImageProcessor::parse("x", text).is_ok()
    };
    for length in [1 << 19, (1 << 20) - 64, 1 << 24] {
        for key in ["block_out_channels", "attention_head_dim", "trained_betas", "other"] {
            let numbers = "1,".repeat(length / 2);
            check(key, format!(r#"{{"{key}":[{numbers}1]}}"#).into_bytes(), config);
            let quotes = r#""","#.repeat(length / 3);
            check(key, format!(r#"{{"{key}":[{quotes}""]}}"#).into_bytes(), config);
        }
    }
    let pickle = |bytes: &[u8]| Pickle::parse("x", bytes).is_ok();
    for operations in
        [&b"N"[..], b"]", b"(", b")", b"}", b"N\x94", b"]\x94", b"]2a", b"K\x01K\x02\x86"]
    {
        let program =
            [b"\x80\x02", operations.repeat((1 << 22) / operations.len()).as_slice()].concat();
        check("a program", program, pickle);
    }
}
