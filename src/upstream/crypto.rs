//! The one choice of cryptography for TLS, outwards and inwards.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The provider (ring), installed as the process's default on the first call. Idempotent; call it
/// before any TLS configuration is built.
pub fn provider() -> Arc<CryptoProvider> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Arc::clone(provider);
    }
    // Somebody else may have been first: then theirs is the default, and ours is dropped.
    let _ = rustls::crypto::ring::default_provider().install_default();
    CryptoProvider::get_default()
        .map_or_else(|| Arc::new(rustls::crypto::ring::default_provider()), Arc::clone)
}
