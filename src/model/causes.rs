//! An error with what caused it, for a log line.

use std::error::Error;
use std::fmt;

/// An error and its causes, from the outermost to the innermost, on one line: `cannot open the index: disk full`.
///
/// A log line in JSON shows of a value of type `dyn Error` the error alone, and the cause is what its reader needs.
#[derive(Debug, Clone, Copy)]
pub struct Causes<'e>(pub &'e dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{what}")]
    struct Failed {
        what: &'static str,
        source: Option<Box<Failed>>,
    }

    #[test]
    fn all_causes_are_told_from_the_outermost_to_the_innermost() {
        let failed = |what, source| Failed { what, source };
        let inner = failed("disk full", None);
        assert_eq!(Causes(&inner).to_string(), "disk full");
        let outer = failed("no index", Some(Box::new(failed("cannot write", Some(Box::new(inner))))));
        assert_eq!(Causes(&outer).to_string(), "no index: cannot write: disk full");
    }
}
