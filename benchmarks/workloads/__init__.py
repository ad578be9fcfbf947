"""One file per question; each has ``run(plan)``, which yields a comparison as soon as it is made."""
