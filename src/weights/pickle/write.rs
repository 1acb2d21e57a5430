//! A dictionary of tensors as `torch.save` writes it: a zip archive of a pickle of protocol 2 and the
//! tensors' bytes, uncompressed.
//!
//! Source: torch `serialization.py`, `_utils.py` (`_rebuild_tensor_v2`); PKWARE's APPNOTE.TXT for zip.

use super::super::{Dtype, HostTensor};

/// The version of the container.
const VERSION: &[u8] = b"3\n";

/// Writes tensors by their names. Archives of 4 GiB and more need a form of zip that this does not
/// write; adapters are smaller.
pub fn write<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a HostTensor)>) -> Vec<u8> {
    let tensors: Vec<_> = tensors.into_iter().collect();
    let mut zip = Zip::default();
    zip.add("archive/data.pkl", &program(&tensors));
    zip.add("archive/byteorder", b"little");
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        zip.add(&format!("archive/data/{i}"), tensor.bytes());
    }
    zip.add("archive/version", VERSION);
    zip.finish()
}

/// The pickle: `{name: torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, {}), ..}`.
fn program(tensors: &[(&str, &HostTensor)]) -> Vec<u8> {
    let mut out = vec![0x80, 2];
    out.extend(b"}(");
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        let storage = match tensor.dtype() {
            Dtype::F16 => "HalfStorage",
            Dtype::Bf16 => "BFloat16Storage",
            Dtype::F32 => "FloatStorage",
        };
        let shape = tensor.shape();
        text(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(format!("ctorch\n{storage}\n").bytes());
        text(&mut out, &i.to_string());
        text(&mut out, "cpu");
        integer(&mut out, shape.iter().product());
        out.extend(b"tQK\0");
        let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product());
        tuple(&mut out, shape.iter().copied());
        tuple(&mut out, strides);
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// As an integer of any length, of eight bytes here.
fn integer(out: &mut Vec<u8>, value: usize) {
    out.extend([0x8a, 8]);
    out.extend((value as u64).to_le_bytes());
}

fn tuple(out: &mut Vec<u8>, values: impl Iterator<Item = usize>) {
    out.push(b'(');
    values.for_each(|value| integer(out, value));
    out.push(b't');
}

/// An archive of uncompressed files.
#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Zip {
    fn add(&mut self, name: &str, contents: &[u8]) {
        let offset = self.bytes.len() as u32;
        let size = (contents.len() as u32).to_le_bytes();
        // What the local header and the directory's entry have in common.
        let mut common = Vec::new();
        // Version 2.0, no flags, stored, and the first day that the format knows.
        for field in [20u16, 0, 0, 0, 0x21] {
            common.extend(field.to_le_bytes());
        }
        common.extend(crc32fast::hash(contents).to_le_bytes());
        common.extend([size, size].concat());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        self.bytes.extend(super::archive::LOCAL_HEADER.to_le_bytes());
        self.bytes.extend(&common);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(contents);
        self.directory.extend(super::archive::DIRECTORY_ENTRY.to_le_bytes());
        self.directory.extend(20u16.to_le_bytes());
        self.directory.extend(&common);
        // No comment, the first disk, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        let start = self.bytes.len() as u32;
        self.bytes.append(&mut self.directory);
        let length = self.bytes.len() as u32 - start;
        self.bytes.extend(super::archive::END_OF_DIRECTORY.to_le_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([self.count.to_le_bytes(), self.count.to_le_bytes()].concat());
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(start.to_le_bytes());
        self.bytes.extend([0; 2]);
        self.bytes
    }
}
