//! What is served: made here, the same bytes every time, laid out as the paths of a registry.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::Scale;
use crate::common::{Item, MIB, Outcome, SplitMix, hex};

/// The media type of every manifest here.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Bytes made at a time.
const PIECE: usize = 1 << 20;

/// Everything that is served.
#[derive(Debug)]
pub(crate) struct Content {
    /// A directory whose files are at their request paths.
    pub(crate) directory: PathBuf,
    /// A manifest by tag.
    pub(crate) tag: Item,
    /// Many manifests by tag.
    pub(crate) tags: Vec<Item>,
    /// A blob of 1 KiB.
    pub(crate) kib: Item,
    /// A blob of 1 MiB.
    pub(crate) mib: Item,
    /// A blob of 100 MiB.
    pub(crate) hundred: Item,
    /// A blob of 1 GiB.
    pub(crate) gib: Item,
    /// A manifest by tag and its layers of 1 MiB.
    pub(crate) image: (Item, Vec<Item>),
    /// Many different blobs of 1 to 128 KiB, as the packages of an installation.
    pub(crate) many: Vec<Item>,
    /// Many different blobs of 100 MiB, which take no space on disk.
    pub(crate) wide: Vec<Item>,
}

impl Content {
    /// Makes it below `directory`.
    pub(crate) fn make(directory: &Path, scale: &Scale) -> Outcome<Self> {
        fs::create_dir_all(directory)?;
        let maker = Maker { directory };
        let layers = |repository, seeds: std::ops::Range<u64>, size| {
            seeds.map(|seed| maker.noise(repository, seed, size)).collect::<Outcome<Vec<_>>>()
        };
        let config = maker.noise("bench/app", 1, 1024)?;
        let app = layers("bench/app", 10..15, 4096)?;
        let tags = (0..scale.tags).map(|n| maker.manifest("bench/many", &format!("t{n:06}"), &config, &app));
        let image_layers = layers("bench/image", 100..140, scale.layer)?;
        Ok(Self {
            directory: directory.to_owned(),
            tag: maker.manifest("bench/app", "latest", &config, &app)?,
            tags: tags.collect::<Outcome<_>>()?,
            kib: maker.noise("bench/blobs", 2, 1024)?,
            mib: maker.noise("bench/blobs", 3, MIB)?,
            hundred: maker.noise("bench/blobs", 4, scale.hundred)?,
            gib: maker.noise("bench/blobs", 5, scale.gib)?,
            image: (maker.manifest("bench/image", "latest", &config, &image_layers)?, image_layers),
            many: (0..scale.many)
                .map(|n| maker.noise("bench/many-blobs", 1000 + n, 1024 << (n % 8)))
                .collect::<Outcome<_>>()?,
            wide: (0..scale.wide_clients)
                .map(|n| maker.hollow("bench/wide", n, scale.wide))
                .collect::<Outcome<_>>()?,
        })
    }

    /// Every item.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Item> {
        [&self.tag, &self.kib, &self.mib, &self.hundred, &self.gib, &self.image.0]
            .into_iter()
            .chain(&self.tags)
            .chain(&self.image.1)
            .chain(&self.many)
            .chain(&self.wide)
    }
}

/// Puts files where their request paths say.
struct Maker<'a> {
    directory: &'a Path,
}

impl Maker<'_> {
    /// A manifest under a tag; the tag is in it, so that no two are the same.
    fn manifest(&self, repository: &str, tag: &str, config: &Item, layers: &[Item]) -> Outcome<Item> {
        let describe = |item: &Item, media_type: &str| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{media_type}"),
                "digest": format!("sha256:{}", item.digest),
                "size": item.size,
            })
        };
        let layers: Vec<_> = layers.iter().map(|layer| describe(layer, "layer.v1.tar")).collect();
        let body = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe(config, "config.v1+json"),
            "layers": layers,
            "annotations": { "org.opencontainers.image.ref.name": tag },
        }))?;
        let path = format!("/v2/{repository}/manifests/{tag}");
        let file = self.place(&path)?;
        fs::write(file, &body)?;
        Ok(Item { path, size: body.len() as u64, digest: hex(&Sha256::digest(&body)) })
    }

    /// A blob that does not compress.
    fn noise(&self, repository: &str, seed: u64, size: u64) -> Outcome<Item> {
        self.blob(repository, size, |file| {
            let mut state = Sha256::new();
            let mut random = SplitMix(seed);
            let mut piece = vec![0; PIECE];
            let mut left = size;
            while left > 0 {
                let take = usize::try_from(left.min(PIECE as u64))?;
                random.fill(&mut piece);
                file.write_all(&piece[..take])?;
                state.update(&piece[..take]);
                left -= take as u64;
            }
            Ok(hex(&state.finalize()))
        })
    }

    /// A blob of a few bytes and then a hole.
    fn hollow(&self, repository: &str, number: u64, size: u64) -> Outcome<Item> {
        self.blob(repository, size, |file| {
            let mut state = Sha256::new();
            let start = number.to_be_bytes();
            file.write_all(&start)?;
            state.update(start);
            file.seek(SeekFrom::Start(size - 1))?;
            file.write_all(&[0])?;
            let zeros = vec![0; PIECE];
            let mut left = size - start.len() as u64;
            while left > 0 {
                let take = usize::try_from(left.min(PIECE as u64))?;
                state.update(&zeros[..take]);
                left -= take as u64;
            }
            Ok(hex(&state.finalize()))
        })
    }

    /// Writes a blob and gives it its name.
    fn blob(
        &self,
        repository: &str,
        size: u64,
        write: impl FnOnce(&mut BufWriter<File>) -> Outcome<String>,
    ) -> Outcome<Item> {
        let staged = self.directory.join("staged");
        let mut file = BufWriter::with_capacity(PIECE, File::create(&staged)?);
        let digest = write(&mut file)?;
        file.flush()?;
        let path = format!("/v2/{repository}/blobs/sha256:{digest}");
        fs::rename(staged, self.place(&path)?)?;
        Ok(Item { path, size, digest })
    }

    /// The file of a request path, with its directories made.
    fn place(&self, path: &str) -> Outcome<PathBuf> {
        let file = self.directory.join(path.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap_or(self.directory))?;
        Ok(file)
    }
}

/// Lays the content out as docker-registry's own storage, with links instead of copies.
pub(crate) fn as_registry_storage(content: &Content, root: &Path) -> Outcome<()> {
    let base = root.join("docker/registry/v2");
    let link = |name: PathBuf, digest: &str| -> Outcome<()> {
        fs::create_dir_all(&name)?;
        Ok(fs::write(name.join("link"), format!("sha256:{digest}"))?)
    };
    for Item { path, digest, .. } in content.all() {
        let blob = base.join("blobs/sha256").join(&digest[..2]).join(digest);
        fs::create_dir_all(&blob)?;
        let data = blob.join("data");
        if !data.exists() {
            fs::hard_link(content.directory.join(path.trim_start_matches('/')), data)?;
        }
        let parts: Vec<&str> = path.trim_start_matches("/v2/").rsplitn(3, '/').collect();
        let [name, kind, repository] = parts[..] else { return Err(format!("odd path {path}").into()) };
        let repository = base.join("repositories").join(repository);
        if kind == "blobs" {
            link(repository.join("_layers/sha256").join(digest), digest)?;
        } else {
            let manifests = repository.join("_manifests");
            link(manifests.join("revisions/sha256").join(digest), digest)?;
            link(manifests.join("tags").join(name).join("current"), digest)?;
            link(manifests.join("tags").join(name).join("index/sha256").join(digest), digest)?;
        }
    }
    Ok(())
}
