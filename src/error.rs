//! The one error type of the crate.
//!
//! Every variant has a stable [`code`](Error::code), which is what JavaScript sees as
//! `error.code`; messages may change between versions, codes do not.

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a call is outside its range, or two arguments contradict each other.
    #[error("{argument}: {message}")]
    InvalidArgument {
        /// The argument's name as JavaScript spells it, e.g. `numInferenceSteps`.
        argument: String,
        /// The value found and the range allowed.
        message: String,
    },
    /// The model, or an option of it, is outside what this crate implements.
    #[error("not supported: {message}")]
    Unsupported {
        /// What was asked for, and what is there instead.
        message: String,
    },
    /// A configuration file is not valid JSON, or lacks what the component needs.
    #[error("{file}: {message}")]
    InvalidConfig {
        /// The file's path inside the model.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A weight file's header or length is wrong: truncated, corrupt or hostile.
    #[error("{file} is not a valid safetensors file: {message}")]
    InvalidSafetensors {
        /// The file's path inside the model.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file of torch is truncated or corrupt, or its pickle asks for more than data.
    #[error("{file} is not a pickle that can be read safely: {message}")]
    InvalidPickle {
        /// The file's name.
        file: String,
        /// What is wrong with it, naming the opcode or the global that is not allowed.
        message: String,
    },
    /// The weight file lacks a tensor that the configuration asks for.
    #[error(
        "{file} has no tensor `{name}` (expected shape {expected:?}); does config.json belong to these weights?"
    )]
    MissingTensor {
        /// The file's path inside the model.
        file: String,
        /// The checkpoint key.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{file}: tensor `{name}` has shape {found:?}, config.json implies {expected:?}")]
    ShapeMismatch {
        /// The file's path inside the model.
        file: String,
        /// The checkpoint key.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that is not a 16- or 32-bit float.
    #[error("{file}: tensor `{name}` is stored as {dtype}; F16, BF16 and F32 can be read")]
    UnsupportedDtype {
        /// The file's path inside the model.
        file: String,
        /// The checkpoint key.
        name: String,
        /// The type as the header names it.
        dtype: String,
    },
    /// None of an adapter's keys belongs to a layer of the model.
    #[error(
        "{file}: none of its {count} keys belongs to a layer of this model, e.g. `{key}`; \
         the nearest layers are {}", .nearest.join(", ")
    )]
    UnknownKeys {
        /// The file's name.
        file: String,
        /// How many keys the file has.
        count: usize,
        /// One of them.
        key: String,
        /// The layers whose names are most like it, the most alike first.
        nearest: Vec<String>,
    },
    /// The server does not have the file.
    #[error("{url} was not found (HTTP 404); check the model's name and revision")]
    NotFound {
        /// The address asked for.
        url: String,
    },
    /// The server answered with another status than success.
    #[error("{url} answered with HTTP status {status}{}", if *.status == 401 || *.status == 403 { "; a gated model needs a token" } else { "" })]
    HttpStatus {
        /// The address asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to wait, seconds, where it says so and CORS shows it.
        retry_after: Option<f64>,
    },
    /// The connection failed, or broke off before the last byte.
    #[error("{url} could not be read: {message}")]
    Network {
        /// The address asked for.
        url: String,
        /// The cause as the platform tells it.
        message: String,
    },
    /// The server answered with success, but with something else than the file: a captive portal's
    /// page, or a file of another length than the Hub's listing says.
    #[error(
        "{url} answered with something else than the file: {message}; a proxy or a captive portal \
         may stand in between, or the mirror is broken"
    )]
    InvalidResponse {
        /// The address asked for.
        url: String,
        /// What came, and what was expected.
        message: String,
    },
    /// A complete file has another hash than the Hub says. Nothing of it is kept.
    #[error(
        "{file} arrived with the wrong content: its hash is {found}, the Hub says {expected}. \
         Nothing of it was kept; load again to fetch it anew"
    )]
    HashMismatch {
        /// The file's path inside the model.
        file: String,
        /// The Hub's hash: sha256, or the git blob id of a small file.
        expected: String,
        /// The hash of what arrived.
        found: String,
    },
    /// `localFilesOnly` is set, and the file is not in the cache.
    #[error(
        "{file} of {model} is not in the cache, and localFilesOnly forbids fetching it; load the \
         model once without it"
    )]
    NotCached {
        /// The model's name.
        model: String,
        /// The file's path inside the model.
        file: String,
    },
    /// The browser's storage failed. Loading goes on without the cache then; calls that are about
    /// the cache itself report it.
    #[error("the cache cannot be used: {message}")]
    Storage {
        /// The cause as the platform tells it.
        message: String,
    },
    /// A picture could not be decoded.
    #[error(
        "the picture could not be decoded: {message}; PNG, JPEG and WebP can be read everywhere"
    )]
    ImageDecode {
        /// What the decoder says.
        message: String,
    },
    /// The edit was stopped by its `AbortSignal` or by a callback.
    #[error("the operation was aborted")]
    Aborted,
    /// The page is not in a secure context, where browsers hide WebGPU.
    #[error("WebGPU needs a secure context: serve the page over https, or from localhost")]
    InsecureContext,
    /// The browser has no WebGPU.
    #[error(
        "this browser has no WebGPU; Chrome and Edge 113, Safari 26 and Firefox 141 or later have it"
    )]
    NoWebGpu,
    /// The browser has WebGPU, but no adapter that can be used.
    #[error(
        "no WebGPU adapter: {message}. Chrome and Edge 113, Safari 26 and Firefox 141 or later have WebGPU; hardware acceleration must be on in the browser's settings, and chrome://gpu tells why an adapter is blocked"
    )]
    NoAdapter {
        /// The cause as the platform tells it.
        message: String,
    },
    /// The GPU's device is gone: the driver crashed, the GPU was taken away, or it slept too long.
    #[error("the GPU device was lost: {message}; load the model again")]
    DeviceLost {
        /// The cause as the platform tells it.
        message: String,
    },
    /// The GPU has not enough memory.
    #[error("the GPU is out of memory: {message}")]
    OutOfMemory {
        /// What was asked for, and what smaller choice would fit.
        message: String,
    },
    /// The GPU failed while it worked.
    #[error("the GPU failed: {message}")]
    Gpu {
        /// The cause as the platform tells it.
        message: String,
    },
}

impl Error {
    /// The stable name of this kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidArgument { .. } => "invalid-argument",
            Self::Unsupported { .. } => "unsupported",
            Self::InvalidConfig { .. } => "invalid-config",
            Self::InvalidSafetensors { .. } => "invalid-safetensors",
            Self::InvalidPickle { .. } => "invalid-pickle",
            Self::MissingTensor { .. } => "missing-tensor",
            Self::ShapeMismatch { .. } => "shape-mismatch",
            Self::UnsupportedDtype { .. } => "unsupported-dtype",
            Self::UnknownKeys { .. } => "unknown-keys",
            Self::NotFound { .. } => "not-found",
            Self::HttpStatus { .. } => "http-status",
            Self::Network { .. } => "network",
            Self::InvalidResponse { .. } => "invalid-response",
            Self::HashMismatch { .. } => "hash-mismatch",
            Self::NotCached { .. } => "not-cached",
            Self::Storage { .. } => "storage",
            Self::ImageDecode { .. } => "image-decode",
            Self::Aborted => "aborted",
            Self::InsecureContext => "insecure-context",
            Self::NoWebGpu => "no-webgpu",
            Self::NoAdapter { .. } => "no-adapter",
            Self::DeviceLost { .. } => "device-lost",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Gpu { .. } => "gpu",
        }
    }

    /// Whether the same call may succeed when it is made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network { .. }
            | Self::InvalidResponse { .. }
            | Self::HashMismatch { .. }
            | Self::DeviceLost { .. } => true,
            Self::HttpStatus { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// An [`Error::InvalidArgument`].
    pub fn argument(argument: impl Into<String>, message: impl Into<String>) -> Self {
        Self::InvalidArgument { argument: argument.into(), message: message.into() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported { message: message.into() }
    }

    /// An [`Error::InvalidConfig`].
    pub fn config(file: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::InvalidConfig { file: file.into(), message: message.to_string() }
    }
}
