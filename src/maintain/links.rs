//! What a ref links, also when its file does not say so.
//!
//! A ref written by hand or by an older version has no `links`; then its target is read and the
//! dialect's rules say what it needs. Where they cannot, the answer is an error: a guess here would
//! let gc delete what is needed (`docs/layout.md`, "Refs").

use std::borrow::Cow;

use super::error::Unlinked;
use super::{MaintainError, Rules};
use crate::model::{ArtifactType, Claim, DOCUMENT_MAX_LEN, Digest, Ref};
use crate::store::{Blob, Store};

/// Whether the links are known.
pub(super) type Linked<'r> = Result<Cow<'r, [Claim]>, Unlinked>;

/// The blobs that a ref's content needs beside its target. A document that is neither live nor
/// condemned links nothing: whoever fetches it learns its links anew.
///
/// # Errors
/// The outer error if the document cannot be read, the inner if it cannot be understood.
pub(super) async fn links_of<'r>(
    store: &Store,
    rules: Rules<'_>,
    artifact_type: ArtifactType,
    reference: &'r Ref,
) -> Result<Linked<'r>, MaintainError> {
    if let Some(links) = &reference.links {
        return Ok(Ok(Cow::Borrowed(links)));
    }
    let Some(rules) = rules(artifact_type) else {
        return Ok(Err(Unlinked::NoRules(artifact_type)));
    };
    if !rules.is_document(&reference.kind) {
        return Ok(Ok(Cow::Borrowed(&[])));
    }
    let digest = reference.target_digest;
    let blob = match store.open_blob(artifact_type, &digest, None)? {
        Some(blob) => blob,
        None => match store.open_condemned(artifact_type, &digest).await? {
            Some(blob) => blob,
            None => return Ok(Ok(Cow::Borrowed(&[]))),
        },
    };
    if blob.size() > DOCUMENT_MAX_LEN {
        return Ok(Err(Unlinked::TooLarge { digest }));
    }
    let document = read_whole(digest, blob).await?;
    let links = rules.links(&reference.kind, reference.media_type.as_deref(), &document);
    Ok(links.map(Cow::Owned).ok_or_else(|| Unlinked::NotUnderstood { digest, kind: reference.kind.clone() }))
}

async fn read_whole(digest: Digest, blob: Blob) -> Result<Vec<u8>, MaintainError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut document = Vec::new();
        loop {
            let offset = document.len() as u64;
            let left = usize::try_from(blob.size().saturating_sub(offset)).unwrap_or(usize::MAX);
            let bytes = if left == 0 { break } else { blob.read_at(offset, left)? };
            if bytes.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            document.extend_from_slice(&bytes);
        }
        Ok(document)
    });
    read.await?.map_err(|source| MaintainError::Read { digest, source })
}
