terraform {
  required_version = ">= 1.3"

  required_providers {
    helm = {
      source = "hashicorp/helm"
      # Version 3 has no set blocks: see README.md.
      version = "~> 2.17"
    }
  }
}

# The cluster of the file's current context.
provider "helm" {
  kubernetes {
    config_path = var.kubeconfig
  }
}
