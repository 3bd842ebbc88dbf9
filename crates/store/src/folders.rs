//! What lies right below a prefix.

use super::{Result, Store};

impl Store {
    /// Names of the folders right below this store's prefix, sorted. Only file systems know of empty ones.
    ///
    /// # Errors
    /// The store's.
    pub async fn folders(&self) -> Result<Vec<String>> {
        let under = self.path("")?;
        let list = || self.inner.list_with_delimiter(Some(&under));
        let found = self.attempt(0, list).await.value;
        let found = found.map_err(|e| self.failed("list", "", e))?;
        let names = found
            .common_prefixes
            .iter()
            .filter_map(|path| path.filename());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }
}
