use std::fs;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/geo").join(name)
}

fn place(country_code: &str, city_name: &str, geoname_id: u32) -> Option<Place> {
    Some(Place { country_code: country_code.into(), city_name: city_name.into(), geoname_id })
}

fn at(places: &Places, address: &str) -> Option<Place> {
    places.of(address.parse().unwrap())
}

#[test]
fn records_of_cities_and_of_countries_are_read() {
    let cities = Places::open(&file("GeoIP2-City-Test.mmdb")).unwrap();
    let countries = Places::open(&file("GeoIP2-Country-Test.mmdb")).unwrap();
    for address in ["2.125.160.216", "::ffff:2.125.160.216"] {
        assert_eq!(at(&cities, address), place("GB", "Boxford", 2_655_045));
        assert_eq!(at(&countries, address), place("GB", "", 0));
    }
    // Of many addresses only the country is known, whatever the database.
    for places in [&cities, &countries] {
        assert_eq!(at(places, "2001:218::1"), place("JP", "", 0));
        for nowhere in ["192.0.2.1", "2001:db8::1", "127.0.0.1", "::1"] {
            assert_eq!(at(places, nowhere), None, "{nowhere}");
        }
    }
    assert!(cities.built() > 0);
}

#[tokio::test]
async fn the_atlas_names_every_country_and_city_there_is() {
    let atlas = Places::open(&file("GeoIP2-City-Test.mmdb")).unwrap().atlas().await.unwrap();
    assert_eq!(atlas.countries["GB"].name, "United Kingdom");
    assert_eq!(atlas.countries["GB"].cities["London"], 2_643_743);
    assert!(!atlas.countries["GB"].cities.contains_key("Linköping"));
    let atlas = Places::open(&file("GeoIP2-Country-Test.mmdb")).unwrap().atlas().await.unwrap();
    assert_eq!(atlas.countries["SE"].name, "Sweden");
    assert!(atlas.countries.values().all(|country| country.cities.is_empty()));
}

#[tokio::test]
async fn an_atlas_is_made_once_for_many_who_ask_at_once_and_go_away() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (slot, made) = (Slot::default(), Arc::new(AtomicUsize::new(0)));
    let ask = || {
        let made = made.clone();
        once(&slot, move || {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(Atlas::default())
        })
    };
    // One that is dropped when it has begun.
    tokio::select! {
        biased;
        _ = ask() => panic!("made at once"),
        () = std::future::ready(()) => {}
    }
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    assert!([b, c, d].into_iter().all(|other| Arc::ptr_eq(&other.unwrap(), a.as_ref().unwrap())));
    assert_eq!(made.load(Ordering::SeqCst), 1);
    let failing = Slot::default();
    assert!(once(&failing, || Err("unreadable".into())).await.is_err());
    assert!(once(&failing, || Ok(Atlas::default())).await.is_ok(), "an error is not kept");
}

#[tokio::test]
async fn without_a_database_nobodys_place_is_known() {
    let none = Places::none();
    assert_eq!(at(&none, "2.125.160.216"), None);
    assert!(!none.look().unwrap());
    assert!(none.atlas().await.unwrap_err().to_string().contains("--geo-database"));
}

#[test]
fn a_file_that_is_replaced_is_read_anew_and_one_that_is_broken_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("geo.mmdb");
    let replace = |content: &[u8]| {
        let new = directory.path().join("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &path).unwrap();
    };
    let read = |name| fs::read(file(name)).unwrap();
    let (cities, countries) = (read("GeoIP2-City-Test.mmdb"), read("GeoIP2-Country-Test.mmdb"));
    replace(&countries);
    let places = Places::open(&path).unwrap();
    let mut changes = places.changes();
    changes.mark_unchanged();
    assert!(!places.look().unwrap());
    replace(&cities);
    assert!(places.look().unwrap() && changes.has_changed().unwrap());
    assert_eq!(at(&places, "2.125.160.216").unwrap().city_name, "Boxford");

    let mut damaged = cities.clone();
    let middle = damaged.len() / 2;
    damaged[middle..middle + 64].fill(0xff);
    for broken in [&cities[..cities.len() / 2], &damaged, b"no database"] {
        replace(broken);
        let said = places.look().unwrap_err().to_string();
        assert!(said.contains("geo.mmdb") && said.contains("cannot be used"), "{said}");
        assert_eq!(at(&places, "2.125.160.216").unwrap().city_name, "Boxford", "the one before stays");
    }
    fs::remove_file(&path).unwrap();
    assert!(places.look().is_err());
    assert_eq!(at(&places, "2.125.160.216").unwrap().city_name, "Boxford");
    assert!(Places::open(&path).is_err(), "at the start somebody is there to mend it");
    replace(&countries);
    assert!(places.look().unwrap());
}
