//! Answers that are for one client alone: they go by without being stored.
//!
//! Whether an answer may be stored is known when its headers are there. By then several clients may wait
//! for it: the first to take it has it, the others ask for themselves. Nothing is written; a client that
//! leaves ends the transfer.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::Stream;

use crate::model::Ref;
use crate::upstream::Answer;

/// An answer that has arrived and is for one client.
#[derive(Debug)]
pub(super) struct Passing {
    /// What it says of itself.
    pub reference: Ref,
    /// Its size, if it says so.
    pub size: Option<u64>,
    answer: Mutex<Option<Answer>>,
}

impl Passing {
    pub(super) fn new(reference: Ref, answer: Answer) -> Self {
        Self { reference, size: answer.content_length(), answer: Mutex::new(Some(answer)) }
    }

    /// The bytes, for the first who asks.
    pub(super) fn take(&self) -> Option<Box<Passed>> {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.map(|answer| Box::new(Passed(answer)))
    }
}

/// The bytes of an answer that goes by.
#[derive(Debug)]
pub struct Passed(Answer);

impl Passed {
    /// The frames of a slice; what lies before it is read and dropped.
    pub(super) fn frames(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
        let (skip, left) = (range.start, range.end.saturating_sub(range.start));
        futures_util::stream::unfold((Some(self.0), skip, left), |(answer, mut skip, left)| async move {
            let mut answer = answer.filter(|_| left > 0)?;
            loop {
                let mut bytes = match answer.chunk().await {
                    Ok(bytes) => bytes?,
                    Err(error) => return Some((Err(io::Error::other(error)), (None, skip, 0))),
                };
                let dropped = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
                skip -= dropped as u64;
                let mut wanted = bytes.split_off(dropped);
                wanted.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                if !wanted.is_empty() {
                    let left = left - wanted.len() as u64;
                    return Some((Ok(wanted), (Some(answer), skip, left)));
                }
            }
        })
    }
}
