use super::*;

/// Made by torch: `string_to_token`, `string_to_param` and what else A1111 writes.
const A1111: &[u8] = include_bytes!("../../../tests/fixtures/oracle/adapters/ti_a1111.pt");

fn parse(bytes: &[u8]) -> Result<Pickle<'_>> {
    Pickle::parse("x.pt", bytes)
}

/// An integer as `LONG1`.
fn long(value: i128) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    [&[0x8a, 10][..], &bytes[..10]].concat()
}

/// A file in the container from before torch 1.6: `object` is a pickle's operations, which may use
/// a `FloatStorage` of `values` by its name `0`.
fn old_file(object: &[u8], values: &[f32]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut pickle = |operations: &[u8]| {
        file.extend([0x80, 2]);
        file.extend(operations);
        file.push(b'.');
    };
    pickle(&long(0x1950_a86a_20f9_469c_fc6c));
    pickle(b"M\xe9\x03");
    pickle(b"}X\x0d\0\0\0little_endian\x88s");
    pickle(object);
    pickle(b"]X\x01\0\0\x000a");
    file.extend((values.len() as u64).to_le_bytes());
    file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
    file
}

/// `{"a": tensor}` of a shape and strides, in the old container.
fn old_tensor(shape: [u8; 2], strides: [u8; 2], offset: u8, length: u8) -> Vec<u8> {
    let mut object = b"}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n".to_vec();
    object.extend(b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK");
    object.push(length);
    object.extend(b"NtQ");
    object.extend([b'K', offset, b'K', shape[0], b'K', shape[1], 0x86]);
    object.extend([b'K', strides[0], b'K', strides[1], 0x86, 0x89]);
    object.extend(b"ccollections\nOrderedDict\n)RtRs");
    object
}

#[test]
fn a_file_of_the_zip_container_is_read() {
    let pickle = parse(A1111).expect("valid");
    let root = pickle.root();
    assert_eq!(root.get("name").and_then(Item::as_str), Some("easy-neg"));
    assert_eq!(root.get("step").and_then(Item::as_i64), Some(100));
    assert!(root.get("sd_checkpoint").is_some_and(Item::is_none));
    let token = root.get("string_to_token").and_then(|item| item.get("*"));
    assert_eq!(token.and_then(Item::as_i64), Some(265));
    assert_eq!(token.and_then(Item::as_f64), Some(265.0));
    let vectors = root.get("string_to_param").and_then(|item| item.get("*")?.as_tensor());
    let vectors = vectors.expect("a tensor");
    assert_eq!(vectors.shape(), [2, 16]);
    let values = vectors.to_host().expect("floats").to_f32();
    assert!(values.iter().all(|x| x.is_finite() && *x != 0.0 && x.abs() < 4.0), "{values:?}");
    assert_eq!(root.entries().expect("a dictionary").len(), 6);
    let error = token.and_then(Item::as_tensor).expect("a tensor").to_host().expect_err("integer");
    assert_eq!(error, "I64");
}

#[test]
fn safetensors_are_not_taken_for_pickles() {
    assert!(is_torch_file(A1111) && is_torch_file(&old_file(b"}", &[])));
    // Headers of 640 bytes and of 67 MB: their lengths start as the containers do.
    assert!(!is_torch_file(b"\x80\x02\0\0\0\0\0\0{}"));
    assert!(!is_torch_file(b"PK\x03\x04\0\0\0\0{}"));
}

#[test]
fn a_file_of_the_old_container_is_read_with_its_strides() {
    let values = [9.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let file = old_file(&old_tensor([3, 2], [1, 3], 1, 7), &values);
    let pickle = parse(&file).expect("valid");
    let tensor = pickle.root().get("a").and_then(Item::as_tensor).expect("a tensor");
    assert_eq!(tensor.to_host().expect("floats").to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn what_is_not_allowed_is_named() {
    let reverse = [1.0];
    let cases: [(&[u8], &str); 8] = [
        (b"cos\nsystem\nX\x02\0\0\0ls\x85R", "os.system"),
        (b"cbuiltins\neval\nX\x01\0\0\x001\x85R", "builtins.eval"),
        (b"X\x05\0\0\0posixX\x06\0\0\0system\x93", "posix.system"),
        // NEWOBJ, INST, OBJ, EXT1
        (b"ccollections\nOrderedDict\n)\x81", "0x81"),
        (b"(ios\nsystem\n", "0x69"),
        (b"(ccollections\nOrderedDict\no", "0x6f"),
        (b"\x82\x01", "0x82"),
        (b"ctorch\nFloatStorage\n)R", "Storage"),
    ];
    for (object, name) in cases {
        let file = old_file(object, &reverse);
        let error = parse(&file).expect_err("not allowed");
        assert_eq!(error.code(), "invalid-pickle");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn tensors_stay_within_their_storages_and_the_file() {
    let cases = [
        // Beyond the storage, by shape, by offset and by strides; longer than the data.
        (old_tensor([3, 3], [3, 1], 0, 7), "reaches beyond"),
        (old_tensor([3, 2], [2, 1], 2, 7), "reaches beyond"),
        (old_tensor([3, 2], [4, 1], 0, 7), "reaches beyond"),
        (old_tensor([3, 2], [2, 1], 0, 8), "shorter"),
        // One element seen 65025 times.
        (old_tensor([255, 255], [0, 0], 0, 7), "more elements than the file"),
    ];
    for (object, message) in cases {
        let file = old_file(&object, &[0.0; 7]);
        let error = parse(&file).expect_err("hostile").to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn programs_without_end_and_cycles_are_survived() {
    let error = parse(&old_file(&vec![b'N'; 1 << 20], &[0.0])).expect_err("too long");
    assert!(error.to_string().contains("operations"), "{error}");
    // A list that contains itself.
    let file = old_file(b"]q\0h\0actorch\nFloatStorage\n0X\x01\0\0\0a0", &[]);
    let error = parse(&file).expect_err("its storage is used nowhere");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn ten_thousand_broken_files_are_refused_or_read_but_never_panic() {
    let mut random = Random(0x5eed);
    let old = old_file(&old_tensor([3, 2], [1, 3], 1, 7), &[0.0; 7]);
    let mut read = 0;
    for round in 0..10_000 {
        let mut bytes = if round % 4 == 0 { old.clone() } else { A1111.to_vec() };
        for _ in 0..=random.below(6) {
            // The program is where breaking matters most.
            let end = if random.below(2) == 0 { bytes.len().min(450) } else { bytes.len() };
            let at = random.below(end);
            match random.below(6) {
                0 => bytes[at] = random.below(256) as u8,
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes[at] = [0xff, 0x7f, 0x80, 0][random.below(4)],
                3 => bytes.truncate(at.max(1)),
                4 => {
                    let from = random.below(bytes.len());
                    let length = random.below(16).min(bytes.len() - at.max(from));
                    bytes.copy_within(from..from + length, at);
                }
                _ => bytes.insert(at, b"().QRt}]0q"[random.below(10)]),
            }
        }
        let Ok(pickle) = parse(&bytes) else { continue };
        read += 1;
        let mut items = vec![pickle.root()];
        // Depth is limited here, since a broken file may contain itself.
        for _ in 0..1000 {
            let Some(item) = items.pop() else { break };
            items.extend(item.items().into_iter().flatten());
            items.extend(item.entries().into_iter().flatten().map(|(_, value)| value));
            item.as_f64();
            if let Some(tensor) = item.as_tensor() {
                let count = tensor.shape().iter().product::<usize>();
                assert!(count <= bytes.len());
                if let Ok(host) = tensor.to_host() {
                    assert_eq!(host.to_f32().len(), count);
                }
            }
        }
    }
    assert!(read > 100, "{read} of the broken files could be read: they are broken too badly");
}
