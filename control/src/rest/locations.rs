//! `/api/locations`: the places that posture checks can name.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ApiResult, ErrorResponse};
use crate::app::App;
use crate::geo;

/// A country of the geo database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Country {
    /// English name.
    pub country_name: String,
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
}

/// A city of the geo database.
#[derive(Debug, Serialize, ToSchema)]
pub struct City {
    /// Its number at GeoNames.
    pub geoname_id: u32,
    /// English name.
    pub city_name: String,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(countries)).routes(routes!(cities))
}

/// The countries that the geo database knows, by name.
#[utoipa::path(get, path = "/api/locations/countries", tag = "Geo Locations",
    responses((status = 200, body = [Country]),
        (status = 412, description = "Control has no geo database", body = ErrorResponse)))]
async fn countries(State(app): State<App>) -> ApiResult<Vec<Country>> {
    let atlas = app.places.atlas().await?;
    let shape = |(code, country): (&String, &geo::Country)| Country {
        country_name: country.name.clone(),
        country_code: code.clone(),
    };
    let mut countries: Vec<Country> = atlas.countries.iter().map(shape).collect();
    countries.sort_by(|a, b| a.country_name.cmp(&b.country_name));
    Ok(Json(countries))
}

/// The cities of a country that the geo database knows, by name; none, when it is a database of countries.
#[utoipa::path(get, path = "/api/locations/countries/{country}/cities", tag = "Geo Locations",
    params(("country" = String, Path, description = "ISO 3166-1 alpha-2, in either case")),
    responses((status = 200, body = [City]),
        (status = 412, description = "Control has no geo database", body = ErrorResponse)))]
async fn cities(State(app): State<App>, Path(country): Path<String>) -> ApiResult<Vec<City>> {
    if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(ApiError::invalid(format!(
            "country {country:?} is not of two letters, as in ISO 3166-1 alpha-2"
        )));
    }
    let atlas = app.places.atlas().await?;
    let cities = atlas.countries.get(&country.to_ascii_uppercase()).map(|country| &country.cities);
    let shape = |(name, id): (&String, &u32)| City { geoname_id: *id, city_name: name.clone() };
    Ok(Json(cities.into_iter().flatten().map(shape).collect()))
}
