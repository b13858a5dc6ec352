//! Moving a body from upstream into a staged blob, and going on where it broke.
//!
//! A broken transfer is resumed by `Range`/`If-Range`. The checksum is the judge of the result;
//! where there is none, only a strong validator makes bytes of two answers one content.

use std::time::Duration;

use http::StatusCode;

use super::failure::Failure;
use crate::protocol::Refusal;
use crate::store::Staged;
use crate::upstream::{Answer, Ask, Resume, Upstream, UpstreamError};

/// How often a transfer is resumed without one more byte.
const MAX_RESUMES: u32 = 5;
/// How long to wait before a transfer is resumed; doubled each time without progress.
const RESUME_DELAY: Duration = Duration::from_millis(100);

/// A transfer of one body.
#[derive(Debug)]
pub(super) struct Transfer<'t> {
    pub upstream: &'t Upstream,
    /// The request that was made, to be made again for the rest.
    pub ask: &'t Ask,
    /// Whether the bytes will be checked against a checksum.
    pub checked: bool,
    /// The most bytes that are accepted.
    pub limit: Option<u64>,
}

impl Transfer<'_> {
    /// Moves all of the body. On an error the staged blob holds a prefix of it.
    pub(super) async fn run(&self, answer: Answer, staged: &mut Staged) -> Result<(), Failure> {
        let validator = strong_validator(&answer);
        let mut answer = answer;
        // Bytes at the front of this answer that are staged already.
        let mut skip = 0;
        let mut fruitless = 0;
        loop {
            let before = staged.len();
            let Some(error) = self.pour(&mut answer, staged, &mut skip).await? else { return Ok(()) };
            if staged.len() > before {
                fruitless = 0;
            }
            if !self.checked && validator.is_none() {
                return Err(error.into());
            }
            (answer, skip) = loop {
                fruitless += 1;
                if fruitless > MAX_RESUMES {
                    return Err(error.into());
                }
                tracing::info!(%error, at = staged.len(), attempt = fruitless, "resuming a broken transfer");
                tokio::time::sleep(RESUME_DELAY * 2_u32.pow(fruitless - 1)).await;
                match self.resume(staged.len(), validator.as_ref()).await {
                    Ok(resumed) => break resumed,
                    Err(UpstreamError::NotFound | UpstreamError::Denied { .. }) => return Err(error.into()),
                    Err(_) => {}
                }
            };
        }
    }

    /// Stages what an answer brings; the error that broke it, if it broke.
    async fn pour(
        &self,
        answer: &mut Answer,
        staged: &mut Staged,
        skip: &mut u64,
    ) -> Result<Option<UpstreamError>, Failure> {
        loop {
            staged.room().await?;
            let mut bytes = match answer.chunk().await {
                Ok(Some(bytes)) => bytes,
                // The end came inside what is staged already: this is not the same content.
                Ok(None) if *skip > 0 => return Ok(Some(UpstreamError::Broken("it became shorter".into()))),
                Ok(None) => return Ok(None),
                Err(error) => return Ok(Some(error)),
            };
            let known = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
            *skip -= known as u64;
            let fresh = bytes.split_off(known);
            if let Some(limit) = self.limit
                && staged.len() + fresh.len() as u64 > limit
            {
                return Err(Failure::passing(Refusal::TooLarge { limit }, "too-large"));
            }
            if !fresh.is_empty() {
                staged.write(fresh).await?;
            }
        }
    }

    /// Asks for the rest: the answer, and how many of its first bytes are staged already.
    async fn resume(&self, from: u64, validator: Option<&String>) -> Result<(Answer, u64), UpstreamError> {
        let resume = (from > 0).then(|| Resume { from, validator: validator.cloned() });
        let ask = Ask { resume, if_none_match: None, if_modified_since: None, ..self.ask.clone() };
        match self.upstream.send(&ask).await {
            Ok(answer) if answer.status == StatusCode::PARTIAL_CONTENT => Ok((answer, 0)),
            // Upstream starts from the beginning. Without a checksum to judge the seam, it must at
            // least say that the content is the same one.
            Ok(answer) if self.checked || strong_validator(&answer).as_ref() == validator => {
                Ok((answer, from))
            }
            Ok(_) => Err(UpstreamError::NotResumable),
            // No ranges, or not for this: from the beginning then.
            Err(UpstreamError::NotResumable) if self.checked => {
                let answer = self.upstream.send(&Ask { resume: None, ..ask }).await?;
                Ok((answer, from))
            }
            Err(error) => Err(error),
        }
    }
}

/// The entity tag, if it is one that promises equal bytes (RFC 9110, 8.8.1).
fn strong_validator(answer: &Answer) -> Option<String> {
    answer.etag().filter(|etag| !etag.starts_with("W/")).map(str::to_owned)
}
