//! A folder on disk in place of a server, for native use.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;

use super::{Body, Fetch, Request, Response};
use crate::error::{Error, Result};

/// Reads `file:` addresses below a folder: use it with [`ModelSource::Base`](super::ModelSource)
/// of the empty string.
#[derive(Debug, Clone)]
pub struct Directory(pub PathBuf);

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;

struct FileBody {
    file: File,
    left: u64,
    url: String,
}

impl Fetch for Directory {
    fn get(&self, request: Request) -> LocalBoxFuture<'_, Result<Response>> {
        Box::pin(std::future::ready(self.open(request)))
    }

    fn wait(&self, _: Duration) -> LocalBoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Directory {
    fn open(&self, request: Request) -> Result<Response> {
        let Request { url, range, .. } = request;
        let fail = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => Error::NotFound { url: url.clone() },
            _ => Error::Network { url: url.clone(), message: error.to_string() },
        };
        let mut file = File::open(self.0.join(url.trim_start_matches('/'))).map_err(fail)?;
        let total = file.metadata().map_err(fail)?.len();
        let partial = range.is_some();
        let range = range.unwrap_or(0..total);
        file.seek(SeekFrom::Start(range.start)).map_err(fail)?;
        let left = range.end.min(total).saturating_sub(range.start);
        Ok(Response {
            total: Some(total),
            partial,
            start: Some(range.start),
            url: url.clone(),
            content_type: None,
            validator: None,
            next: None,
            body: Box::new(FileBody { file, left, url }),
        })
    }
}

impl Body for FileBody {
    fn next_chunk(&mut self) -> LocalBoxFuture<'_, Result<Option<Vec<u8>>>> {
        Box::pin(std::future::ready(self.read()))
    }
}

impl FileBody {
    fn read(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; self.left.min(PIECE_BYTES as u64) as usize];
        let count = self.file.read(&mut bytes).map_err(|error| Error::Network {
            url: self.url.clone(),
            message: error.to_string(),
        })?;
        bytes.truncate(count);
        self.left -= count as u64;
        Ok((count > 0).then_some(bytes))
    }
}
