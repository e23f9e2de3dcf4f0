"""Who sends requests: classes of Locust users. Importing them imports Locust, which patches the standard library."""
