//! Moving a body from upstream into a staged blob, and going on where it broke.
//!
//! A broken transfer is resumed by `Range`/`If-Range`. The checksum is the judge of the result;
//! where there is none, only a strong validator makes bytes of two answers one content. What is given up is
//! left in the store, and the next fetch of the same content goes on with it in the same way.

use std::time::Duration;

use http::StatusCode;

use super::failure::Failure;
use crate::protocol::Refusal;
use crate::store::{Staged, StoreError};
use crate::upstream::{Answer, Ask, Resume, Upstream, UpstreamError};

/// How often a transfer is resumed without one more byte, or because it is too slow.
const MAX_RESUMES: u32 = 5;
/// How long to wait before a transfer is resumed; doubled each time without progress.
const RESUME_DELAY: Duration = Duration::from_millis(100);

/// How often a transfer was resumed in vain.
#[derive(Debug, Default)]
struct Resumes {
    fruitless: u32,
}

impl Resumes {
    /// Notes that an answer broke. One that brought bytes makes up for those that did not; a trickle
    /// brings some each time, and is no use for it.
    fn broke(&mut self, error: &UpstreamError, progressed: bool) {
        if progressed && *error != UpstreamError::TooSlow {
            self.fruitless = 0;
        }
    }

    /// How long to wait before the next try; `None` if it is not worth one.
    fn next(&mut self) -> Option<Duration> {
        let delay = RESUME_DELAY * 2_u32.pow(self.fruitless);
        self.fruitless += 1;
        (self.fruitless <= MAX_RESUMES).then_some(delay)
    }
}

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
    /// Moves all of the body. On an error the staged blob holds a prefix of it. `unstored` is told, perhaps
    /// more than once, when it turns out that the bytes are not stored.
    pub(super) async fn run(
        &self,
        answer: Answer,
        staged: &mut Staged,
        unstored: &mut (dyn FnMut(&StoreError) + Send),
    ) -> Result<(), Failure> {
        let validator = strong_validator(&answer);
        // And how many bytes at its front are staged already.
        let (mut answer, mut skip) = match staged.len() {
            0 => (answer, 0),
            // An earlier transfer came this far: all that is wanted is the rest.
            from => {
                drop(answer);
                tracing::info!(at = from, "going on with what was left of an earlier transfer");
                self.resume(from, validator.as_ref()).await?
            }
        };
        let mut resumes = Resumes::default();
        loop {
            let before = staged.len();
            let poured = self.pour(&mut answer, staged, &mut skip, unstored).await?;
            let Some(error) = poured else { return Ok(()) };
            resumes.broke(&error, staged.len() > before);
            if !self.checked && validator.is_none() {
                return Err(error.into());
            }
            (answer, skip) = loop {
                let Some(delay) = resumes.next() else { return Err(error.into()) };
                tracing::info!(%error, at = staged.len(), attempt = resumes.fruitless, "resuming a broken transfer");
                tokio::time::sleep(delay).await;
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
        unstored: &mut (dyn FnMut(&StoreError) + Send),
    ) -> Result<Option<UpstreamError>, Failure> {
        loop {
            staged.room().await?;
            if let Some(why) = staged.unstored() {
                unstored(why);
            }
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
                let is_first = staged.is_empty();
                staged.write(fresh).await?;
                if is_first {
                    // Who began it waits on this thread, and goes before the next bytes.
                    tokio::task::yield_now().await;
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a transfer of which every answer breaks in this way is resumed.
    fn resumed(error: &UpstreamError, progressed: bool) -> u32 {
        let mut resumes = Resumes::default();
        let mut times = 0;
        loop {
            resumes.broke(error, progressed);
            if resumes.next().is_none() || times == 100 {
                return times;
            }
            times += 1;
        }
    }

    #[test]
    fn a_trickle_is_resumed_no_more_often_than_what_brings_nothing_and_breaks_in_between_without_end() {
        let broken = UpstreamError::Broken("x".into());
        assert_eq!(resumed(&broken, false), MAX_RESUMES);
        assert_eq!(resumed(&UpstreamError::TooSlow, true), MAX_RESUMES);
        assert_eq!(resumed(&broken, true), 100, "it gets there");
    }

    #[test]
    fn waits_double_until_there_is_progress() {
        let mut resumes = Resumes::default();
        let mut delays = || resumes.next().map(|delay| delay.as_millis());
        assert_eq!([delays(), delays(), delays()], [Some(100), Some(200), Some(400)]);
        resumes.broke(&UpstreamError::Broken("x".into()), true);
        assert_eq!(resumes.next(), Some(RESUME_DELAY));
    }
}
