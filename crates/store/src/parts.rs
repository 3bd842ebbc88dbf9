//! Writing a large object in parts.

use super::Store;
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::{ObjectStoreExt, path::Path};

/// Parts that are on their way at a time.
const PARTS_AT_A_TIME: usize = 4;

impl Store {
    /// Writes an object whole, in parts, or not at all.
    pub(super) async fn put_parts(&self, path: &Path, bytes: &Bytes) -> object_store::Result<()> {
        let part = self.part.max(bytes.len().div_ceil(9000));
        let write = || async {
            let mut upload = self.inner.put_multipart(path).await?;
            let cuts = (0..bytes.len()).step_by(part);
            let parts: Vec<_> = cuts
                .map(|at| upload.put_part(bytes.slice(at..bytes.len().min(at + part)).into()))
                .collect();
            let mut sent = stream::iter(parts).buffer_unordered(PARTS_AT_A_TIME);
            let sent = async {
                while let Some(part) = sent.next().await {
                    part?;
                }
                upload.complete().await
            };
            let sent = sent.await;
            if sent.is_err() {
                // Parts that nobody refers to cost money; the first trouble is the one to tell.
                let _ = upload.abort().await;
            }
            sent.map(drop)
        };
        self.attempt(bytes.len() as u64, write).await.value
    }
}
