//! Where addresses are, by a MaxMind database (GeoLite2 or GeoIP2, of countries or of cities), read anew when its file changes.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use serde::Deserialize;
use sluicegate_policy::posture::Place;
use tokio::sync::watch;

/// How often the file is looked at: weekly updates need no more, and a person who replaces it by hand waits no longer.
const LOOK: Duration = Duration::from_secs(5);

/// A geo database, or none. Clones share it.
#[derive(Clone)]
pub struct Places {
    file: Option<Arc<Path>>,
    loaded: watch::Sender<Loaded>,
}

/// Why there is no place to be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GeoError {
    /// None is configured.
    #[error(
        "geo location database is not initialized: give control one by `database` in [geo], or --geo-database"
    )]
    None,
    /// The file is no such database, or cannot be read.
    #[error("geo location database {} cannot be used: {why}", .file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

type Loaded = Result<Arc<Database>, GeoError>;

/// A database in memory.
pub struct Database {
    reader: Reader<Vec<u8>>,
    mark: Mark,
    atlas: Slot,
}

/// What is made when it is asked for, once.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Atlas>>>>;

/// Everything a database can name, by country code.
#[derive(Debug, Default)]
pub struct Atlas {
    /// By ISO 3166-1 alpha-2.
    pub countries: BTreeMap<String, Country>,
}

/// A country with its cities.
#[derive(Debug, Default)]
pub struct Country {
    /// English name.
    pub name: String,
    /// GeoNames' numbers of its cities, by English name.
    pub cities: BTreeMap<String, u32>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

/// A record, of whichever database: one of countries has no city.
#[derive(Debug, Default, Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    country: Named<'a>,
    #[serde(default)]
    city: Named<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Named<'a> {
    #[serde(default)]
    iso_code: Option<&'a str>,
    #[serde(default)]
    geoname_id: Option<u32>,
    #[serde(borrow, default)]
    names: Names<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Names<'a> {
    #[serde(default)]
    en: Option<&'a str>,
}

impl Places {
    /// No database: nobody's place is known.
    pub fn none() -> Self {
        Self { file: None, loaded: watch::Sender::new(Err(GeoError::None)) }
    }

    /// Reads a database.
    ///
    /// # Errors
    /// When it cannot be read now. Later, the one that was read last stays until there is another that can.
    pub fn open(file: &Path) -> Result<Self, GeoError> {
        let database = Database::read(file)?;
        Ok(Self { file: Some(file.into()), loaded: watch::Sender::new(Ok(Arc::new(database))) })
    }

    /// Where an address is; `None` when the database does not know, or there is none.
    pub fn of(&self, address: IpAddr) -> Option<Place> {
        self.loaded.borrow().as_ref().ok()?.of(address)
    }

    /// The database in use.
    pub fn database(&self) -> Result<Arc<Database>, GeoError> {
        self.loaded.borrow().clone()
    }

    /// Everything the database can name. It is looked through once, which takes some seconds for all cities of the world.
    pub async fn atlas(&self) -> Result<Arc<Atlas>, GeoError> {
        let database = self.database()?;
        let file = self.file.as_deref().unwrap_or(Path::new("")).to_owned();
        let failed = |why: String| GeoError::Unusable { file, why };
        let slot = database.atlas.clone();
        once(&slot, move || database.read_atlas().map_err(|error| error.to_string())).await.map_err(failed)
    }

    /// When the database was made, Unix seconds; 0 where there is none.
    pub fn built(&self) -> u64 {
        self.loaded
            .borrow()
            .as_ref()
            .map(|database| database.reader.metadata().build_epoch)
            .unwrap_or_default()
    }

    /// Told whenever another database is in use.
    pub fn changes(&self) -> watch::Receiver<Loaded> {
        self.loaded.subscribe()
    }

    /// Looks whether the file is another one now, and reads it: true when it was, false when it is as before.
    ///
    /// # Errors
    /// When it is another one that cannot be used. The one before stays in use.
    pub fn look(&self) -> Result<bool, GeoError> {
        let Some(file) = &self.file else { return Ok(false) };
        let mark = Mark::of(file).map_err(|error| unusable(file, error))?;
        if self.loaded.borrow().as_ref().is_ok_and(|database| database.mark == mark) {
            return Ok(false);
        }
        let database = Database::read(file)?;
        drop(self.loaded.send_replace(Ok(Arc::new(database))));
        Ok(true)
    }

    /// Follows the file for as long as this runs.
    pub async fn follow(self) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let places = self.clone();
            let looked = tokio::task::spawn_blocking(move || places.look()).await;
            let why = match looked {
                Ok(Ok(false)) => None,
                Ok(Ok(true)) => {
                    tracing::info!(built = self.built(), "the geo location database was read anew");
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Once: a file that is being written is not one yet.
            if let Some(why) = why.as_ref().filter(|why| said.as_ref() != Some(*why)) {
                tracing::warn!("{why}; the one before stays in use");
            }
            said = why;
        }
    }
}

impl Database {
    fn read(file: &Path) -> Result<Self, GeoError> {
        // Before the content: a file that is replaced in between is read once more.
        let mark = Mark::of(file).map_err(|error| unusable(file, error))?;
        let reader = Reader::open_readfile(file).map_err(|error| unusable(file, error))?;
        let kind = reader.metadata().database_type.clone();
        if !kind.contains("City") && !kind.contains("Country") && !kind.contains("Enterprise") {
            return Err(unusable(
                file,
                format!("it is of type {kind:?}; one of countries or cities is needed"),
            ));
        }
        // What is damaged would be found only when somebody's address happens to lie there.
        reader.verify().map_err(|error| unusable(file, error))?;
        Ok(Self { reader, mark, atlas: Slot::default() })
    }

    fn of(&self, address: IpAddr) -> Option<Place> {
        let found = self.reader.lookup(address.to_canonical()).ok()?;
        let record = found.decode::<Record<'_>>().ok()??;
        let country_code = record.country.iso_code?.to_ascii_uppercase();
        Some(Place {
            country_code,
            city_name: record.city.names.en.unwrap_or_default().to_owned(),
            geoname_id: record.city.geoname_id.unwrap_or_default(),
        })
    }

    fn read_atlas(&self) -> Result<Atlas, MaxMindDbError> {
        let mut atlas = Atlas::default();
        let mut seen = HashSet::new();
        for network in self.reader.networks(WithinOptions::default())? {
            let network = network?;
            // Most networks share their record with others.
            if !network.offset().is_none_or(|offset| seen.insert(offset)) {
                continue;
            }
            let Some(Record { country, city }) = network.decode::<Record<'_>>()? else { continue };
            let Some(code) = country.iso_code else { continue };
            let known = atlas.countries.entry(code.to_ascii_uppercase()).or_default();
            if known.name.is_empty() {
                country.names.en.unwrap_or(code).clone_into(&mut known.name);
            }
            if let (Some(name), Some(id)) = (city.names.en, city.geoname_id) {
                known.cities.entry(name.to_owned()).or_insert(id);
            }
        }
        Ok(atlas)
    }
}

/// What is in `slot`, made by `make` if there is nothing yet: by one, while the others wait.
async fn once(
    slot: &Slot,
    make: impl FnOnce() -> Result<Atlas, String> + Send + 'static,
) -> Result<Arc<Atlas>, String> {
    let mut slot = slot.clone().lock_owned().await;
    if let Some(known) = &*slot {
        return Ok(known.clone());
    }
    // Whoever asks may go away: what has begun is finished, and kept.
    let made = tokio::task::spawn_blocking(move || {
        let made = Arc::new(make()?);
        *slot = Some(made.clone());
        Ok(made)
    });
    made.await.map_err(|error| error.to_string())?
}

impl Mark {
    fn of(file: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(file)?;
        Ok(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

fn unusable(file: &Path, why: impl std::fmt::Display) -> GeoError {
    GeoError::Unusable { file: file.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests;
