//! Hashes: the Hub's of whole files, whose state can be kept with a download that is not complete,
//! and a fast one of each chunk.

use sha1::{Digest, Sha1};
use sha2::compress256;
use sha2::digest::generic_array::GenericArray;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::hub::FileHash;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// SHA-256's initial state.
///
/// Source: FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// SHA-256 whose state between two blocks is eight words that can be stored.
///
/// Source: FIPS 180-4, 6.2; the compression function is the `sha2` crate's.
#[derive(Debug, Clone)]
pub struct Sha256 {
    state: [u32; 8],
    /// The beginning of a block.
    rest: Vec<u8>,
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { state: INITIAL, rest: Vec::new(), length: 0 }
    }
}

impl Sha256 {
    /// Goes on after `length` bytes, a multiple of 64, that led to `state`.
    pub fn resume(state: [u32; 8], length: u64) -> Self {
        Self { state, rest: Vec::new(), length }
    }

    /// The state to go on from, between blocks.
    pub fn state(&self) -> Option<[u32; 8]> {
        self.rest.is_empty().then_some(self.state)
    }

    /// Hashes on.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() < BLOCK {
                return;
            }
            let block = std::mem::take(&mut self.rest);
            compress256(&mut self.state, &[*GenericArray::from_slice(&block)]);
        }
        let (blocks, rest) = bytes.split_at(bytes.len() / BLOCK * BLOCK);
        // A few blocks at a time, because the compression takes them as arrays.
        let mut buffer = Vec::with_capacity(64);
        for group in blocks.chunks(64 * BLOCK) {
            buffer.clear();
            buffer.extend(group.chunks_exact(BLOCK).map(|block| *GenericArray::from_slice(block)));
            compress256(&mut self.state, &buffer);
        }
        self.rest.extend_from_slice(rest);
    }

    /// The hash, in hexadecimal digits.
    pub fn finish(mut self) -> String {
        let bits = self.length * 8;
        let mut padding = vec![0x80];
        let used = (self.rest.len() + 1 + 8) % BLOCK;
        padding.resize(1 + (BLOCK - used) % BLOCK, 0);
        padding.extend(bits.to_be_bytes());
        self.update(&padding);
        self.state.iter().map(|word| format!("{word:08x}")).collect()
    }
}

/// The hash of a whole file while its bytes pass by.
#[derive(Debug, Clone)]
pub enum FileHasher {
    /// Of files in LFS.
    Sha256(Sha256),
    /// Of other files.
    GitBlob(Sha1),
}

impl FileHasher {
    /// A hasher of the same kind as `hash`, for a file of `size` bytes.
    pub fn new(hash: &FileHash, size: u64) -> Self {
        match hash {
            FileHash::Sha256(_) => Self::Sha256(Sha256::default()),
            FileHash::GitBlob(_) => Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }

    /// Hashes on.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    /// The hash, in hexadecimal digits.
    pub fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hasher.finish(),
            Self::GitBlob(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// Git's id of a file with this content, in hexadecimal digits.
pub fn git_blob(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

/// The hash that tells whether a chunk is still as it was stored. Chunks that have changed places
/// differ in it.
pub fn chunk_hash(bytes: &[u8], index: u32) -> u64 {
    xxh3_64_with_seed(bytes, u64::from(index))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values are `sha256sum`'s and `git hash-object`'s.
    #[test]
    fn hashes_are_the_standard_ones() {
        let sha = |bytes: &[u8]| {
            let mut hasher = Sha256::default();
            hasher.update(bytes);
            hasher.finish()
        };
        assert_eq!(sha(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(sha(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(git_blob(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        assert_eq!(git_blob(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        let mut blob = FileHasher::new(&FileHash::GitBlob(String::new()), 6);
        blob.update(b"hel");
        blob.update(b"lo\n");
        assert_eq!(blob.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }

    #[test]
    fn pieces_of_every_length_hash_as_the_crate_does() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| (i * i / 7) as u8).collect();
        for length in (0..200).chain([4095, 4096, 4097, 19_999]) {
            let expected = hex(&sha2::Sha256::digest(&bytes[..length]));
            for piece in [1, 63, 64, 65, 5000] {
                let mut hasher = Sha256::default();
                bytes[..length].chunks(piece).for_each(|piece| hasher.update(piece));
                assert_eq!(hasher.finish(), expected, "{length} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn hashing_goes_on_from_a_stored_state() {
        let bytes: Vec<u8> = (0..1000_u32).map(|i| i as u8).collect();
        let mut first = Sha256::default();
        first.update(&bytes[..640]);
        let state = first.state().expect("between blocks");
        let mut second = Sha256::resume(state, 640);
        second.update(&bytes[640..]);
        assert_eq!(second.state(), None);
        assert_eq!(second.finish(), hex(&sha2::Sha256::digest(&bytes)));
    }

    #[test]
    fn chunk_hashes_differ_by_content_and_place() {
        assert_ne!(chunk_hash(b"a", 0), chunk_hash(b"b", 0));
        assert_ne!(chunk_hash(b"a", 0), chunk_hash(b"a", 1));
    }
}
