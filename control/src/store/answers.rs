//! Answers that are kept with the change they belong to, so that a request that is sent again is not done again.

use super::unit::Unit;
use super::{Result, sql};
use crate::ids::now;

/// How long an answer is kept, in milliseconds: a day.
const KEPT: i64 = 24 * 3600 * 1000;

/// A request that was done, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct KeptAnswer {
    /// Hash of what was asked.
    pub request: Vec<u8>,
    /// HTTP status.
    pub status: i64,
    /// The body as whoever kept it wrote it; control seals it, for it can hold a secret.
    pub body: Vec<u8>,
}

impl Unit {
    /// The answer that was kept under `id` in the last day.
    pub async fn kept_answer(&self, id: &[u8; 32]) -> Result<Option<KeptAnswer>> {
        sql::query_as("SELECT request, status, body FROM answers WHERE id = $1 AND at > $2")
            .bind(id.as_slice())
            .bind(now() - KEPT)
            .fetch_optional(&mut self.connection().await?)
            .await
    }

    /// Keeps an answer under `id` with whatever this unit changes, and forgets those of the day before.
    pub async fn keep_answer(&self, id: &[u8; 32], answer: &KeptAnswer) -> Result<()> {
        let (mut db, at) = (self.connection().await?, now());
        sql::query("DELETE FROM answers WHERE at <= $1").bind(at - KEPT).execute(&mut db).await?;
        sql::query("INSERT INTO answers (id, at, request, status, body) VALUES ($1, $2, $3, $4, $5)")
            .bind(id.as_slice())
            .bind(at)
            .bind(answer.request.as_slice())
            .bind(answer.status)
            .bind(answer.body.as_slice())
            .execute(&mut db)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[tokio::test]
    async fn an_answer_is_kept_for_a_day_and_then_its_key_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).await.unwrap();
        let answer = |status| KeptAnswer { request: vec![1], status, body: vec![2, 3] };
        let unit = store.unit().await.unwrap();
        unit.keep_answer(&[1; 32], &answer(200)).await.unwrap();
        unit.commit().await.unwrap();
        let dropped = store.unit().await.unwrap();
        dropped.keep_answer(&[2; 32], &answer(200)).await.unwrap();
        drop(dropped);

        let unit = store.unit().await.unwrap();
        assert_eq!(unit.kept_answer(&[1; 32]).await.unwrap(), Some(answer(200)));
        assert_eq!(unit.kept_answer(&[2; 32]).await.unwrap(), None);
        let older = sql::query("UPDATE answers SET at = at - $1").bind(KEPT);
        older.execute(&mut unit.connection().await.unwrap()).await.unwrap();
        assert_eq!(unit.kept_answer(&[1; 32]).await.unwrap(), None);
        unit.keep_answer(&[1; 32], &answer(201)).await.unwrap();
        assert_eq!(unit.kept_answer(&[1; 32]).await.unwrap(), Some(answer(201)));
    }
}
